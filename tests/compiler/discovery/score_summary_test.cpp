#include "compiler/discovery/score_summary.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "compiler/discovery/discover.h"
#include "ir/element_spans.h"
#include "ir/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/random_case.h"
#include "tests/support/seed.h"

namespace spion {
namespace {

TEST(Weight, CountsTheShiftsThatStayInside) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    for (int round = 0; round < 4000; ++round) {
        const int rows = pick(random, 1, 20), columns = pick(random, 1, 20);
        const int r = pick(random, -25, 45), c = pick(random, -25, 45);
        const int filter = pick(random, 1, 50);
        int expected = 0;
        for (int f = -(filter / 2); f <= filter - 1 - filter / 2; ++f) {
            expected += r - f >= 0 && r - f < rows && c - f >= 0 && c - f < columns ? 1 : 0;
        }
        ASSERT_EQ(weight(r, c, rows, columns, filter), expected)
            << r << " " << c << " in " << rows << " x " << columns << " filter " << filter;
    }
}

// What the score_summary kernel is to write: for each tile, 7 sums in fp32.
std::vector<float> summarise(const std::vector<float>& scores, std::int64_t length, int block,
                             int tile, int filter) {
    const std::int64_t tiles = (length + tile - 1) / tile;
    const std::int64_t nb = (length + block - 1) / block;
    const auto rows_of = [&](std::int64_t index) {
        return static_cast<int>(std::min<std::int64_t>(block, length - index * block));
    };
    std::vector<float> summary(static_cast<std::size_t>(tiles * tiles * 7), 0.0F);
    for (std::int64_t i = 0; i < length; ++i) {
        for (std::int64_t j = 0; j < length; ++j) {
            for (std::size_t n = 0; n < kNeighbours.size(); ++n) {
                const std::int64_t row = i / block + kNeighbours[n].row;
                const std::int64_t column = j / block + kNeighbours[n].column;
                if (row < 0 || row >= nb || column < 0 || column >= nb) {
                    continue;
                }
                const int w =
                    weight(static_cast<int>(i - row * block), static_cast<int>(j - column * block),
                           rows_of(row), rows_of(column), filter);
                summary[static_cast<std::size_t>((i / tile * tiles + j / tile) * 7) + n] +=
                    static_cast<float>(w) * scores[static_cast<std::size_t>(i * length + j)];
            }
        }
    }
    return summary;
}

TEST(ScoreSummary, CombinesToThePooledMap) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    std::uniform_real_distribution<float> value(0.0F, 1.0F);
    for (int round = 0; round < 40; ++round) {
        const int block = 16 << pick(random, 0, 3);
        const int tile = std::max(16, block >> pick(random, 0, 2));
        const std::int64_t length = pick(random, 1, 300);
        const int filter = pick(random, 1, 2 * block + 1);  // shifts of at most `block`
        std::vector<float> scores(static_cast<std::size_t>(length * length));
        std::generate(scores.begin(), scores.end(), [&] { return value(random); });
        const std::vector<double> pooled =
            combine_summary(summarise(scores, length, block, tile, filter), length, block, tile);
        const std::vector<double> expected =
            pool_scores(std::vector<double>(scores.begin(), scores.end()), length,
                        {.block = block, .filter = filter});
        ASSERT_EQ(pooled.size(), expected.size());
        for (std::size_t i = 0; i < pooled.size(); ++i) {
            ASSERT_NEAR(pooled[i], expected[i], 1e-4 * std::max(1.0, expected[i]))
                << "L=" << length << " block=" << block << " tile=" << tile << " filter=" << filter
                << " at " << i;
        }
    }
}

// Probabilities of a causal layer, whose dropped elements are 0, give the pattern of the map in which
// they are -inf: pooled from the elements, as docs/formats.md says.
TEST(ScoreSummary, ACausalLayerFindsThePatternOfItsMaskedMap) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    for (int round = 0; round < 30; ++round) {
        const int block = 16 << pick(random, 0, 1);
        const int tile = std::max(16, block >> pick(random, 0, 1));
        const std::int64_t length = pick(random, 1, 300);
        const DiscoverySettings settings{.block = block, .filter = pick(random, 1, block)};
        std::vector<float> scores(static_cast<std::size_t>(length * length));
        for (std::int64_t i = 0; i < length; ++i) {
            for (std::int64_t j = 0; j <= i; ++j) {
                scores[static_cast<std::size_t>(i * length + j)] =
                    static_cast<float>(pick(random, 0, 15));  // sums are exact
            }
        }
        const BlockPattern found =
            discover_layer(combine_summary(summarise(scores, length, block, tile, settings.filter),
                                           length, block, tile),
                           {.length = length, .scale = 1, .mask = ElementMask::kCausal}, settings);
        const ScoreRows masked = [&](std::int64_t row, std::span<double> to) {
            for (std::int64_t j = 0; j < length; ++j) {
                to[static_cast<std::size_t>(j)] =
                    j > row ? -std::numeric_limits<double>::infinity()
                            : double{scores[static_cast<std::size_t>(row * length + j)]};
            }
        };
        const std::vector<double> pooled = pool_masked_scores(masked, length, settings);
        EXPECT_EQ(found.to_bits(), discover_masked(pooled, length, settings).to_bits())
            << "L=" << length << " block=" << block << " filter=" << settings.filter;
        EXPECT_EQ(found, visited_blocks(
                             found, {.length = length, .scale = 1, .mask = ElementMask::kCausal}));
    }
}

TEST(ScoreSummary, RefusesSumsOfAnotherShape) {
    expect_error<InternalError>([] { combine_summary(std::vector<float>(7), 64, 64, 48); },
                                "tile 48 does not divide block 64");
    expect_error<InternalError>([] { combine_summary(std::vector<float>(8), 64, 64, 64); },
                                "8 sums, 1 x 1 tiles have 7 each");
}

}  // namespace
}  // namespace spion
