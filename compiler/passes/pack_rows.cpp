#include "compiler/passes/pack_rows.h"

#include <algorithm>
#include <map>
#include <utility>

namespace spion {
namespace {

// Appends the work item of `count` tiles of `program`, one a block row, each `apart` entries behind
// the one before.
void append_union(const TileProgram& program, int first, int count, int apart,
                  TileProgram& packed) {
    std::map<std::int32_t, std::uint32_t> bits_of;  // gather block -> block rows that use it
    for (int bit = 0; bit < count; ++bit) {
        const int tile = first + bit * apart;
        for (std::int32_t at = program.offsets[tile]; at < program.offsets[tile + 1]; ++at) {
            bits_of[program.gather_blocks[at]] |= 1U << bit;
        }
    }
    for (const auto& [gather_block, bits] : bits_of) {
        packed.gather_blocks.push_back(gather_block);
        packed.block_row_masks.push_back(bits);
    }
    packed.order.push_back(
        static_cast<std::int32_t>(program.pattern(first) * packed.pattern_tiles() +
                                  program.tile(first) / packed.packed_rows()));
    packed.offsets.push_back(static_cast<std::int32_t>(packed.gather_blocks.size()));
}

}  // namespace

TileProgram pack_rows(TileProgram program, const PassContext& context) {
    if (context.shape.stationary_rows <= program.block) {
        return program;
    }
    TileProgram packed = program;
    packed.stationary_rows = context.shape.stationary_rows;
    packed.warps = context.shape.warps;
    packed.order = {};
    packed.offsets = {0};
    packed.gather_blocks = {};
    const int rows = packed.packed_rows();
    // As walk_pattern has left them: item after item, its walks side by side.
    const int walks = item_walks(program.attention, program.role);
    for (int w = 0; w < program.tiles(); ++w) {
        const std::int64_t left = program.pattern_tiles() - program.tile(w);
        if (program.tile(w) % rows == 0) {
            append_union(program, w, static_cast<int>(std::min<std::int64_t>(rows, left)), walks,
                         packed);
        }
    }
    return packed;
}

}  // namespace spion
