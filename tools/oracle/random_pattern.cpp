#include "tools/oracle/random_pattern.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>
#include <vector>

#include "ir/ceil_div.h"
#include "ir/error.h"

namespace spion {
namespace {

constexpr std::int64_t kMaxBlocks = 8192;  // a side: every block off the diagonal is a candidate

// [0, 1), by arithmetic rather than std::uniform_real_distribution, whose results differ between
// standard libraries.
double uniform(std::mt19937_64& generator) {
    return static_cast<double>(generator() >> 11) * 0x1p-53;
}

// Blocks of a map whose diagonal ends at the last query and the last key.
struct Grid {
    std::int64_t length, key_length, block, rows, columns;

    // The block column of the diagonal in the middle of a block row.
    std::int64_t diagonal(std::int64_t row) const {
        const std::int64_t middle = row * block + (block - 1) / 2 + key_length - length;
        return std::clamp<std::int64_t>(middle / block, 0, columns - 1);
    }
};

Grid grid_of(std::int64_t length, std::int64_t key_length, int block) {
    const std::int64_t keys = key_length == 0 ? length : key_length, edge = std::max(block, 1);
    return {.length = length,
            .key_length = keys,
            .block = edge,
            .rows = ceil_div(length, edge),
            .columns = ceil_div(keys, edge)};
}

}  // namespace

BlockPattern random_pattern(std::int64_t length, int block, double density, std::uint64_t seed,
                            std::int64_t key_length) {
    if (!(density >= 0 && density <= 1)) {
        throw UserError("the density of a random pattern is {}; give a fraction between 0 and 1",
                        density);
    }
    const Grid grid = grid_of(length, key_length, block);
    if (std::max(grid.rows, grid.columns) > kMaxBlocks) {
        throw UserError("a random pattern of {} x {} blocks is too large; at most {} a side",
                        grid.rows, grid.columns, kMaxBlocks);
    }
    const std::int64_t all = grid.rows * grid.columns;
    std::mt19937_64 generator(seed);
    std::vector<double> popularity(grid.columns);
    for (double& column : popularity) {
        column = uniform(generator);
    }
    std::vector<std::pair<double, std::int64_t>> candidates;  // (score, index) off the diagonal
    for (std::int64_t index = 0; index < all; ++index) {
        const double score = uniform(generator) + popularity[index % grid.columns];
        if (index % grid.columns != grid.diagonal(index / grid.columns)) {
            candidates.emplace_back(score, index);
        }
    }
    const double wanted = std::round(density * static_cast<double>(all));
    const auto extra = std::clamp<std::int64_t>(static_cast<std::int64_t>(wanted) - grid.rows, 0,
                                                std::ssize(candidates));
    std::nth_element(candidates.begin(), candidates.begin() + extra, candidates.end(),
                     std::greater<>());
    std::vector<std::uint8_t> bits(all);
    for (std::int64_t row = 0; row < grid.rows; ++row) {
        bits[row * grid.columns + grid.diagonal(row)] = 1;
    }
    for (std::int64_t n = 0; n < extra; ++n) {
        bits[candidates[n].second] = 1;
    }
    return BlockPattern(length, grid.key_length, block, std::move(bits));
}

BlockPattern striped_pattern(std::int64_t length, int block, int band, int stripes,
                             std::uint64_t seed, std::int64_t key_length) {
    const Grid grid = grid_of(length, key_length, block);
    const std::int64_t columns_of_map = grid.columns;
    if (band < 0 || (band > 0 && band % 2 == 0)) {
        throw UserError("a band of {} blocks is not centred; give an odd width, or 0 for none",
                        band);
    }
    if (stripes < 0 || stripes > columns_of_map ||
        std::max(grid.rows, columns_of_map) > kMaxBlocks) {
        throw UserError("{} stripes in {} x {} blocks; give 0 to as many as there are, {} at most",
                        stripes, grid.rows, columns_of_map, kMaxBlocks);
    }
    std::mt19937_64 generator(seed);
    std::vector<std::pair<double, std::int64_t>> columns;  // (score, column)
    for (std::int64_t column = 0; column < columns_of_map; ++column) {
        columns.emplace_back(uniform(generator), column);
    }
    std::sort(columns.begin(), columns.end());
    std::vector<std::uint8_t> bits(grid.rows * columns_of_map);
    for (std::int64_t row = 0; row < grid.rows; ++row) {
        for (int n = 0; n < stripes; ++n) {
            bits[row * columns_of_map + columns[n].second] = 1;
        }
        const std::int64_t centre = grid.diagonal(row);
        for (std::int64_t column = std::max<std::int64_t>(0, centre - band / 2);
             column < std::min(columns_of_map, centre + (band + 1) / 2); ++column) {
            bits[row * columns_of_map + column] = 1;
        }
    }
    return BlockPattern(length, grid.key_length, block, std::move(bits));
}

}  // namespace spion
