// Random patterns for property tests: every block edge, ragged lengths, empty and full rows.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "ir/block_pattern.h"

namespace spion {

inline int pick(std::mt19937_64& random, int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
}

inline int pick_block(std::mt19937_64& random) {
    return 16 << pick(random, 0, 3);
}

// Up to `most_blocks` blocks a side; about a quarter of the patterns have empty rows and columns.
// With as many keys as queries, or another number of them.
inline BlockPattern pick_pattern(std::mt19937_64& random, int block, int most_blocks = 12,
                                 bool square = true) {
    const std::int64_t length = pick(random, 1, most_blocks * block);
    const std::int64_t keys = square ? length : pick(random, 1, most_blocks * block);
    const auto rows = static_cast<std::size_t>((length + block - 1) / block);
    const auto columns = static_cast<std::size_t>((keys + block - 1) / block);
    std::vector<std::uint8_t> bits(rows * columns);
    const double density = std::uniform_real_distribution<double>(0.0, 1.0)(random);
    for (std::uint8_t& bit : bits) {
        bit = std::bernoulli_distribution(density)(random) ? 1 : 0;
    }
    if (pick(random, 0, 3) == 0) {
        const auto row = static_cast<std::size_t>(pick(random, 0, static_cast<int>(rows) - 1));
        const auto column = columns - 1 - std::min(row, columns - 1);
        for (std::size_t i = 0; i < columns; ++i) {
            bits[row * columns + i] = 0;
        }
        for (std::size_t i = 0; i < rows; ++i) {
            bits[i * columns + column] = 0;
        }
    }
    return BlockPattern(length, keys, block, bits);
}

}  // namespace spion
