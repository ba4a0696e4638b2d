#include "tools/oracle/random_pattern.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>
#include <vector>

#include "ir/error.h"

namespace spion {
namespace {

constexpr std::int64_t kMaxBlocks = 8192;  // a side: every block off the diagonal is a candidate

// [0, 1), by arithmetic rather than std::uniform_real_distribution, whose results differ between
// standard libraries.
double uniform(std::mt19937_64& generator) {
    return static_cast<double>(generator() >> 11) * 0x1p-53;
}

}  // namespace

BlockPattern random_pattern(std::int64_t length, int block, double density, std::uint64_t seed) {
    if (!(density >= 0 && density <= 1)) {
        throw UserError("the density of a random pattern is {}; give a fraction between 0 and 1",
                        density);
    }
    const std::int64_t blocks = (length + block - 1) / std::max(block, 1);
    if (blocks > kMaxBlocks) {
        throw UserError("a random pattern of {} x {} blocks is too large; at most {} a side",
                        blocks, blocks, kMaxBlocks);
    }
    std::mt19937_64 generator(seed);
    std::vector<double> popularity(blocks);
    for (double& column : popularity) {
        column = uniform(generator);
    }
    std::vector<std::pair<double, std::int64_t>> candidates;  // (score, index) off the diagonal
    for (std::int64_t index = 0; index < blocks * blocks; ++index) {
        const double score = uniform(generator) + popularity[index % blocks];
        if (index / blocks != index % blocks) {
            candidates.emplace_back(score, index);
        }
    }
    const double wanted = std::round(density * static_cast<double>(blocks * blocks));
    const auto extra = std::clamp<std::int64_t>(static_cast<std::int64_t>(wanted) - blocks, 0,
                                                std::ssize(candidates));
    std::nth_element(candidates.begin(), candidates.begin() + extra, candidates.end(),
                     std::greater<>());
    std::vector<std::uint8_t> bits(blocks * blocks);
    for (std::int64_t index = 0; index < blocks; ++index) {
        bits[index * blocks + index] = 1;
    }
    for (std::int64_t n = 0; n < extra; ++n) {
        bits[candidates[n].second] = 1;
    }
    return BlockPattern(length, block, std::move(bits));
}

BlockPattern striped_pattern(std::int64_t length, int block, int band, int stripes,
                             std::uint64_t seed) {
    const std::int64_t blocks = (length + block - 1) / std::max(block, 1);
    if (band < 0 || (band > 0 && band % 2 == 0)) {
        throw UserError("a band of {} blocks is not centred; give an odd width, or 0 for none",
                        band);
    }
    if (stripes < 0 || stripes > blocks || blocks > kMaxBlocks) {
        throw UserError("{} stripes in {} x {} blocks; give 0 to as many as there are, {} at most",
                        stripes, blocks, blocks, kMaxBlocks);
    }
    std::mt19937_64 generator(seed);
    std::vector<std::pair<double, std::int64_t>> columns;  // (score, column)
    for (std::int64_t column = 0; column < blocks; ++column) {
        columns.emplace_back(uniform(generator), column);
    }
    std::sort(columns.begin(), columns.end());
    std::vector<std::uint8_t> bits(blocks * blocks);
    for (std::int64_t row = 0; row < blocks; ++row) {
        for (int n = 0; n < stripes; ++n) {
            bits[row * blocks + columns[n].second] = 1;
        }
        for (std::int64_t column = std::max<std::int64_t>(0, row - band / 2);
             column < std::min(blocks, row + (band + 1) / 2); ++column) {
            bits[row * blocks + column] = 1;
        }
    }
    return BlockPattern(length, block, std::move(bits));
}

}  // namespace spion
