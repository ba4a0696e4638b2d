// The walks of the emulated kernels' cases, written down straight from their blocks.
#pragma once

#include <cstdint>
#include <vector>

#include "ir/tile_program.h"
#include "tests/kernels/emulated_cases.h"

namespace spion {

// Which blocks of a case are there, [block rows][block columns].
using EmulatedBlocks = std::vector<std::vector<bool>>;

// Appends one tile's walk, written down straight from the blocks of its pattern.
inline void append_walk(TileProgram& program, const EmulatedCase& c, int tile,
                        const EmulatedBlocks& blocks) {
    const std::int64_t stays = stationary_length(program.attention, program.role);
    const std::int64_t streams = streamed_length(program.attention, program.role);
    const auto gather_blocks = static_cast<int>((streams + c.gather_rows - 1) / c.gather_rows);
    const auto block_rows = static_cast<std::size_t>((stays + c.block - 1) / c.block);
    for (int gather_block = 0; gather_block < gather_blocks; ++gather_block) {
        const auto first =
            static_cast<std::size_t>(std::int64_t{tile} * c.stationary_rows / c.block);
        const auto other =
            static_cast<std::size_t>(std::int64_t{gather_block} * c.gather_rows / c.block);
        const bool columns = walks_columns(program.role);
        std::uint32_t bits = 0;  // block rows of the tile that use the gather block
        for (std::size_t row = 0; row < static_cast<std::size_t>(program.packed_rows()); ++row) {
            const std::size_t mine = first + row;
            if (mine >= block_rows) continue;
            const bool has_block = columns ? blocks[other][mine] : blocks[mine][other];
            bits |= static_cast<std::uint32_t>(has_block) << row;
        }
        if (bits == 0) continue;
        program.gather_blocks.push_back(gather_block);
        if (program.packed_rows() > 1) program.block_row_masks.push_back(bits);
    }
    program.offsets.push_back(static_cast<int>(program.gather_blocks.size()));
}

// The walk of ir/tile_program.h; order reversed, the walks of an item side by side.
inline TileProgram with_walk(const EmulatedCase& c, KernelRole role,
                             const std::vector<EmulatedBlocks>& patterns) {
    TileProgram program = program_of(c, role);
    const auto tiles = static_cast<int>(program.pattern_tiles());
    const int walks = item_walks(program.attention, role);
    // By number where sequences need it; else any order will do.
    for (int group = 0; group < c.pattern_count(); group += walks) {
        const int first = c.by_number() ? group : c.pattern_count() - walks - group;
        for (int n = 0; n < tiles; ++n) {
            const int tile = c.by_number() ? n : tiles - 1 - n;
            for (int pattern = first; pattern < first + walks; ++pattern) {
                program.order.push_back(pattern * tiles + tile);
                append_walk(program, c, tile, patterns[static_cast<std::size_t>(pattern)]);
            }
        }
    }
    return program;
}

// Cases that exist once more as "<name>_baked", with the tables of baked_blocks() in their source:
// rows of several lengths, none among them; rows and columns that are all alike; blocks below the
// diagonal alone.
constexpr const char* kBakedCases[] = {"bf16_d32", "fp16_d16", "fp32_d128", "packed_bf16_d32",
                                       "causal_full"};

inline EmulatedBlocks baked_blocks(const EmulatedCase& c) {
    const auto nb = static_cast<std::size_t>((c.length + c.block - 1) / c.block);
    EmulatedBlocks blocks(nb, std::vector<bool>(nb));
    for (std::size_t i = 0; i < nb; ++i) {
        for (std::size_t j = 0; j < nb; ++j) {
            const std::size_t apart = (j + nb - i) % nb;
            blocks[i][j] = c.mask == ElementMask::kCausal ? j < i && (i + j) % 4 != 3
                           : c.dtype == DType::kFp32      ? apart < 2
                                                          : i + 1 == nb || apart < i % 3;
        }
    }
    return blocks;
}

inline TileProgram baked_program(const EmulatedCase& c, KernelRole role) {
    TileProgram program = with_walk(c, role, {baked_blocks(c)});
    program.tables = Tables::kBaked;
    for (int item = 0; item < program.tiles(); ++item) {
        const auto end = static_cast<std::size_t>(program.offsets[item + 1]);
        for (auto at = static_cast<std::size_t>(program.offsets[item]); at < end; ++at) {
            program.coverages.push_back(gather_block_coverage(program, item, at));
        }
    }
    return program;
}

}  // namespace spion
