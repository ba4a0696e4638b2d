#include "compiler/passes/pack_rows.h"

#include <algorithm>
#include <map>
#include <utility>

namespace spion {
namespace {

// Appends the work item of the tiles [first, end) of `program`, one a block row.
void append_union(const TileProgram& program, int first, int end, TileProgram& packed) {
    std::map<std::int32_t, std::uint32_t> bits_of;  // gather block -> block rows that use it
    for (int tile = first; tile < end; ++tile) {
        for (std::int32_t at = program.offsets[tile]; at < program.offsets[tile + 1]; ++at) {
            bits_of[program.gather_blocks[at]] |= 1U << (tile - first);
        }
    }
    for (const auto& [gather_block, bits] : bits_of) {
        packed.gather_blocks.push_back(gather_block);
        packed.block_row_masks.push_back(bits);
    }
    packed.order.push_back(static_cast<std::int32_t>(packed.order.size()));
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
    for (int first = 0; first < program.tiles(); first += rows) {
        append_union(program, first, std::min(first + rows, program.tiles()), packed);
    }
    return packed;
}

}  // namespace spion
