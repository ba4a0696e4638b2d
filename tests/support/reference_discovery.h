// SPION's discovery straight from its definition (Yoon, Han, Moon: SPION, PAKDD 2024, section 2), in
// float64 and on the whole map at once. Shares no code with compiler/discovery/.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

namespace spion {

// The mean of the map, summed along its diagonals by `filter`, over each block: [nb, nb].
inline std::vector<double> reference_pooled(const std::vector<double>& map, int length, int block,
                                            int filter) {
    const int blocks = (length + block - 1) / block;
    std::vector<double> sums(static_cast<std::size_t>(blocks * blocks)), counts(sums.size());
    for (int i = 0; i < length; ++i) {
        for (int j = 0; j < length; ++j) {
            const int cell = i / block * blocks + j / block;
            counts.at(cell) += 1;
            for (int f = 0; f < filter; ++f) {
                const int row = i + f - filter / 2, column = j + f - filter / 2;
                const bool inside = row >= 0 && row < length && column >= 0 && column < length;
                sums.at(cell) += inside ? map.at(row * length + column) : 0.0;
            }
        }
    }
    for (std::size_t cell = 0; cell < sums.size(); ++cell) sums[cell] /= counts[cell];
    return sums;
}

// numpy.quantile(pooled, q), linear.
inline double reference_threshold(std::vector<double> pooled, double q) {
    std::sort(pooled.begin(), pooled.end());
    const double at = q * static_cast<double>(pooled.size() - 1);
    const double below = pooled.at(static_cast<std::size_t>(std::floor(at)));
    const double above = pooled.at(static_cast<std::size_t>(std::ceil(at)));
    return below + (above - below) * (at - std::floor(at));
}

// The flood fill from every cell of the first row and column, and the diagonal: nb lines of nb
// characters. A walk goes to the largest of the cells below, to the right and across, and across
// where none of the others is larger; beyond the map lie zeros.
inline std::string reference_pattern(const std::vector<double>& pooled, double threshold) {
    const int blocks = static_cast<int>(std::lround(std::sqrt(pooled.size())));
    std::string bits;
    for (int i = 0; i < blocks; ++i) bits += std::string(blocks, '0') + "\n";
    const auto value = [&](int row, int column) {
        return row >= blocks || column >= blocks ? 0.0 : pooled.at(row * blocks + column);
    };
    const auto walk = [&](int row, int column) {
        for (;;) {
            const double below = value(row + 1, column), right = value(row, column + 1);
            const double across = value(row + 1, column + 1);
            if (across >= below && across >= right) {
                ++row, ++column;
            } else if (below > right) {
                ++row;
            } else {
                ++column;
            }
            if (row >= blocks || column >= blocks) return;
            if (value(row, column) > threshold) bits.at(row * (blocks + 1) + column) = '1';
        }
    };
    for (int k = 0; k < blocks; ++k) {
        walk(0, k);
        walk(k, 0);
        bits.at(k * (blocks + 1) + k) = '1';
    }
    return bits;
}

}  // namespace spion
