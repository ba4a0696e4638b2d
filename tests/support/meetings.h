// What a program computes, element by element, without the help of verify().
#pragma once

#include <cstdint>
#include <vector>

#include "ir/block_pattern.h"
#include "ir/tile_program.h"

namespace spion {

// How often a stationary row and a streamed row meet: [L][L] counts.
inline std::vector<int> meetings(const TileProgram& program) {
    const std::int64_t length = program.attention.length;
    std::vector<int> counts(static_cast<std::size_t>(length * length), 0);
    for (int item = 0; item < program.tiles(); ++item) {
        for (std::int32_t at = program.offsets[item]; at < program.offsets[item + 1]; ++at) {
            for (std::int64_t r = 0; r < program.stationary_rows; ++r) {
                const std::int64_t row = program.order[item] * program.stationary_rows + r;
                const bool used = program.block_row_masks.empty() ||
                                  (program.block_row_masks[at] >> (r / program.block) & 1U) != 0;
                for (std::int64_t c = 0; used && c < program.gather_rows; ++c) {
                    const std::int64_t column = program.gather_blocks[at] * program.gather_rows + c;
                    if (row < length && column < length) {
                        counts[static_cast<std::size_t>(row * length + column)] += 1;
                    }
                }
            }
        }
    }
    return counts;
}

// How often they should: once where the pattern has them, else never.
inline std::vector<int> wanted_meetings(const BlockPattern& pattern, KernelRole role) {
    const std::int64_t length = pattern.length();
    std::vector<int> counts;
    for (std::int64_t i = 0; i < length; ++i) {
        for (std::int64_t j = 0; j < length; ++j) {
            const auto row = static_cast<int>(i / pattern.block());
            const auto column = static_cast<int>(j / pattern.block());
            const bool by_columns = role == KernelRole::kKeyValueGradient;
            counts.push_back((by_columns ? pattern.at(column, row) : pattern.at(row, column)) ? 1
                                                                                              : 0);
        }
    }
    return counts;
}

}  // namespace spion
