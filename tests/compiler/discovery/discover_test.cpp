#include "compiler/discovery/discover.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "io/array_file.h"
#include "ir/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/random_case.h"
#include "tests/support/seed.h"

namespace spion {
namespace {

TEST(Discover, EqualsEveryGolden) {
    std::ifstream file(SPION_GOLDENS "/cases.json");
    const nlohmann::json cases = nlohmann::json::parse(file);
    ASSERT_EQ(cases.size(), 18U);
    for (const nlohmann::json& golden : cases) {
        const std::string name = golden["scores"];
        const Array scores = open_array(SPION_GOLDENS "/" + name);
        ASSERT_EQ(scores.shape.size(), 2U);
        const std::int64_t length = scores.shape[0];
        const DiscoverySettings settings{.block = golden["block"],
                                         .filter = golden["filter"],
                                         .quantile = golden["quantile"],
                                         .density = golden["density"],
                                         .variant = parse_variant(std::string(golden["variant"]))};
        SCOPED_TRACE(name + " " + std::string(golden["variant"]));
        const std::vector<double> pooled = pool_scores(scores.values(), length, settings);
        const double sum = golden["pooled_sum"];
        EXPECT_NEAR(std::accumulate(pooled.begin(), pooled.end(), 0.0), sum, 1e-12 * sum);
        EXPECT_DOUBLE_EQ(quantile(pooled, settings.quantile), double(golden["threshold"]));
        const BlockPattern pattern = discover(pooled, length, settings);
        std::string expected;
        for (const std::string row : golden["pattern"]) {
            expected += row + "\n";
        }
        EXPECT_EQ(pattern.to_bits(), expected);
        EXPECT_EQ(pattern.block_count(), std::int64_t(golden["blocks"]));
        EXPECT_EQ(pattern.length(), length);
        EXPECT_EQ(pattern.block(), settings.block);
    }
}

TEST(Discover, VariantNames) {
    for (Variant variant : {Variant::kCF, Variant::kF, Variant::kC}) {
        EXPECT_EQ(parse_variant(to_string(variant)), variant);
    }
    EXPECT_EQ(to_string(Variant::kCF), "cf");
    EXPECT_EQ(to_string(Variant::kF), "f");
    EXPECT_EQ(to_string(Variant::kC), "c");
    expect_error<UserError>([] { parse_variant("fc"); },
                            "variant 'fc' is not known: use cf, f or c");
}

TEST(Discover, SettingsOutOfRange) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const auto refuses = [](const DiscoverySettings& settings, const std::string& text) {
        expect_error<UserError>([&] { check(settings); }, text);
    };
    EXPECT_NO_THROW(check(DiscoverySettings{}));
    EXPECT_NO_THROW(check(DiscoverySettings{.quantile = 0.0, .density = 1.0}));
    EXPECT_NO_THROW(check(DiscoverySettings{.quantile = 1.0, .density = 0.0}));
    refuses({.block = 48}, "block 48 is not allowed: use 16, 32, 64 or 128");
    refuses({.filter = 0}, "filter 0 is not allowed: use an edge of 1 or more");
    refuses({.quantile = 1.5}, "quantile 1.5 is not allowed: use a number from 0 to 1");
    refuses({.quantile = -0.1}, "quantile -0.1");
    refuses({.quantile = nan}, "quantile nan");
    refuses({.density = 1.01}, "density 1.01 is not allowed: use a number from 0 to 1");
    refuses({.density = nan}, "density nan");
}

TEST(Discover, FilterIsUnusedByTheFloodFillAlone) {
    EXPECT_EQ(effective_filter({.filter = 31, .variant = Variant::kCF}), 31);
    EXPECT_EQ(effective_filter({.filter = 31, .variant = Variant::kC}), 31);
    EXPECT_EQ(effective_filter({.filter = 31, .variant = Variant::kF}), 1);
}

// Halfway between order statistics, and q at, below and above every one of them.
TEST(Quantile, InterpolatesBetweenOrderStatistics) {
    const std::vector<double> values = {3.0, 1.0, 4.0, 1.5, 9.0};
    EXPECT_EQ(quantile(values, 0.0), 1.0);
    EXPECT_EQ(quantile(values, 1.0), 9.0);
    EXPECT_EQ(quantile(values, 0.5), 3.0);
    EXPECT_DOUBLE_EQ(quantile(values, 0.125), 1.25);
    EXPECT_DOUBLE_EQ(quantile(values, 0.9), 4.0 + 0.6 * 5.0);
    EXPECT_EQ(quantile(std::vector<double>{7.0}, 0.3), 7.0);
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    std::uniform_real_distribution<double> value(-1.0, 1.0);
    for (int round = 0; round < 100; ++round) {
        std::vector<double> drawn(static_cast<std::size_t>(pick(random, 1, 40)));
        std::generate(drawn.begin(), drawn.end(), [&] { return value(random); });
        const double q = std::abs(value(random));
        std::vector<double> sorted = drawn;
        std::sort(sorted.begin(), sorted.end());
        const double position = q * static_cast<double>(sorted.size() - 1);
        const auto low = static_cast<std::size_t>(std::floor(position));
        const std::size_t high = std::min(low + 1, sorted.size() - 1);
        const double expected = sorted[low] * (1.0 - (position - std::floor(position))) +
                                sorted[high] * (position - std::floor(position));
        ASSERT_NEAR(quantile(drawn, q), expected, 1e-14);
    }
    expect_error<InternalError>([] { quantile({}, 0.5); }, "quantile 0.5 of 0 values");
}

// Straight from the definition: conv[i, j] summed shift by shift, pooled over the elements there
// are.
std::vector<double> pool_by_definition(const std::vector<double>& a, std::int64_t length, int block,
                                       int filter) {
    const std::int64_t nb = (length + block - 1) / block;
    std::vector<double> sums(static_cast<std::size_t>(nb * nb), 0.0);
    std::vector<double> counts(sums.size(), 0.0);
    for (std::int64_t i = 0; i < length; ++i) {
        for (std::int64_t j = 0; j < length; ++j) {
            double conv = 0.0;
            for (std::int64_t f = -(filter / 2); f < filter - filter / 2; ++f) {
                if (i + f >= 0 && i + f < length && j + f >= 0 && j + f < length) {
                    conv += a[static_cast<std::size_t>((i + f) * length + j + f)];
                }
            }
            const auto at = static_cast<std::size_t>(i / block * nb + j / block);
            sums[at] += conv;
            counts[at] += 1.0;
        }
    }
    for (std::size_t at = 0; at < sums.size(); ++at) {
        sums[at] /= counts[at];
    }
    return sums;
}

TEST(PoolScores, FollowsTheDefinition) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    std::uniform_real_distribution<double> value(0.0, 1.0);
    for (int round = 0; round < 40; ++round) {
        const int block = 16 << pick(random, 0, 2);
        const std::int64_t length = pick(random, 1, 150);
        const int filter = pick(random, 0, 9) == 0 ? 1000 : pick(random, 1, 40);
        std::vector<double> scores(static_cast<std::size_t>(length * length));
        std::generate(scores.begin(), scores.end(), [&] { return value(random); });
        const DiscoverySettings settings{.block = block, .filter = filter};
        const std::vector<double> pooled = pool_scores(scores, length, settings);
        const std::vector<double> expected = pool_by_definition(scores, length, block, filter);
        ASSERT_EQ(pooled.size(), expected.size());
        for (std::size_t i = 0; i < pooled.size(); ++i) {
            ASSERT_NEAR(pooled[i], expected[i], 1e-12 * std::max(1.0, expected[i]))
                << "L=" << length << " block=" << block << " filter=" << filter;
        }
    }
    expect_error<UserError>([] { pool_scores(std::vector<double>(15), 4, {.block = 16}); },
                            "a score map of 15 elements was given: length 4 needs 4 x 4");
}

// A banded map: all blocks of a diagonal are equal, so every choice of the walk is a tie or not by
// the band alone. Sums that round differently from block to block would break the ties.
TEST(PoolScores, EqualBlocksPoolToEqualBits) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    std::lognormal_distribution<double> value(0.0, 8.0);
    constexpr std::int64_t kLength = 160;
    constexpr int kBlock = 16;
    std::vector<double> band(2 * kLength);
    std::generate(band.begin(), band.end(), [&] { return value(random); });
    std::vector<double> scores(kLength * kLength);
    for (std::int64_t i = 0; i < kLength; ++i) {
        for (std::int64_t j = 0; j < kLength; ++j) {
            scores[i * kLength + j] = band[kLength + i - j];
        }
    }
    constexpr int kBlocks = kLength / kBlock;
    const std::vector<double> pooled =
        pool_scores(scores, kLength, {.block = kBlock, .filter = 15});
    for (int i = 2; i < kBlocks - 1; ++i) {  // the first and last rows see the zero padding
        for (int j = 2; j < kBlocks - 1; ++j) {
            EXPECT_EQ(pooled[i * kBlocks + j], pooled[(i - 1) * kBlocks + j - 1]);
        }
    }
}

TEST(FloodFill, ResolvesTiesAsSpecified) {
    // One start, (0, 0), decides in a 2 x 2 grid; walks from (0, 1) and (1, 0) leave it at once or
    // step to (1, 1).
    const auto marks = [](double right, double below, double diagonal, double threshold = 0.5) {
        const std::vector<double> pooled = {9.0, right, below, diagonal};
        return flood_fill(pooled, 2, threshold);
    };
    using Marks = std::vector<std::uint8_t>;
    EXPECT_EQ(marks(1.0, 2.0, 1.0), (Marks{0, 0, 1, 1}));  // below is largest
    EXPECT_EQ(marks(2.0, 1.0, 1.0), (Marks{0, 1, 0, 1}));  // right is largest
    EXPECT_EQ(marks(1.0, 1.0, 2.0), (Marks{0, 0, 0, 1}));  // diagonal is largest
    EXPECT_EQ(marks(2.0, 2.0, 1.0), (Marks{0, 1, 0, 1}));  // right wins from below
    EXPECT_EQ(marks(1.0, 2.0, 2.0), (Marks{0, 0, 0, 1}));  // diagonal wins from below
    EXPECT_EQ(marks(2.0, 1.0, 2.0), (Marks{0, 0, 0, 1}));  // and from right
    EXPECT_EQ(marks(1.0, 1.0, 1.0), (Marks{0, 0, 0, 1}));
    EXPECT_EQ(marks(0.5, 0.25, 0.25), (Marks{0, 0, 0, 0}));  // strictly above the threshold only
    EXPECT_EQ(flood_fill(std::vector<double>{1.0}, 1, 0.5), (Marks{0}));
}

TEST(FloodFill, GoesOnBelowTheThreshold) {
    // The walk from (0, 0) crosses the weak (1, 1) and marks the strong (2, 2) behind it.
    const std::vector<double> pooled = {0.0, 0.0, 0.0, 0.0, 0.1, 0.0, 0.0, 0.0, 1.0};
    EXPECT_EQ(flood_fill(pooled, 3, 0.5), (std::vector<std::uint8_t>{0, 0, 0, 0, 0, 0, 0, 0, 1}));
}

TEST(Discover, TopKTakesTheLargestAndEarlierAmongEquals) {
    const std::vector<double> pooled = {0.0, 5.0, 5.0, 1.0, 0.0, 5.0, 2.0, 2.0, 0.0};
    const auto bits = [&](double density) {
        return discover(pooled, 48, {.block = 16, .density = density, .variant = Variant::kC})
            .to_bits();
    };
    EXPECT_EQ(bits(0.0), "100\n010\n001\n");   // k < 0
    EXPECT_EQ(bits(0.43), "100\n010\n001\n");  // 9 * 0.43 - 3 = 0.87, k = 0
    EXPECT_EQ(bits(0.56), "111\n010\n001\n");  // 9 * 0.56 - 3 = 2.04, k = 2
    EXPECT_EQ(bits(0.78), "111\n011\n101\n");  // k = 4
    EXPECT_EQ(bits(1.0), "111\n111\n111\n");   // k = 6 of the off-diagonal cells
}

TEST(Discover, TopKMarksKBlocksOfDistinctScores) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    for (int round = 0; round < 30; ++round) {
        const int nb = pick(random, 1, 20);
        std::vector<double> pooled(static_cast<std::size_t>(nb * nb));
        std::iota(pooled.begin(), pooled.end(), 1.0);
        std::shuffle(pooled.begin(), pooled.end(), random);
        const double density = std::uniform_real_distribution<double>(0.0, 1.0)(random);
        const int keep = std::max(0, static_cast<int>(std::floor(nb * nb * density - nb)));
        const BlockPattern pattern =
            discover(pooled, 16 * nb, {.block = 16, .density = density, .variant = Variant::kC});
        for (int i = 0; i < nb; ++i) {
            for (int j = 0; j < nb; ++j) {
                const bool among_largest = pooled[i * nb + j] > nb * nb - keep;
                ASSERT_EQ(pattern.at(i, j), i == j || among_largest);
            }
        }
    }
}

TEST(Discover, RefusesBadMaps) {
    const DiscoverySettings settings{.block = 16};
    expect_error<UserError>([&] { discover(std::vector<double>(3), 32, settings); },
                            "a pooled map of 3 values was given: length 32 in blocks of 16 needs");
    for (Variant variant : {Variant::kCF, Variant::kF, Variant::kC}) {
        for (double bad :
             {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
            DiscoverySettings with = settings;
            with.variant = variant;
            expect_error<UserError>(
                [&] {
                    discover(std::vector<double>{0.0, bad, 0.0, 0.0}, 32, with);
                },
                "the pooled map holds values that are not finite");
        }
    }
}

TEST(Discover, HandlesRaggedLengths) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    std::uniform_real_distribution<double> value(0.0, 1.0);
    for (int round = 0; round < 20; ++round) {
        const std::int64_t length = pick(random, 1, 200);
        std::vector<double> scores(static_cast<std::size_t>(length * length));
        std::generate(scores.begin(), scores.end(), [&] { return value(random); });
        for (Variant variant : {Variant::kCF, Variant::kF, Variant::kC}) {
            const DiscoverySettings settings{
                .block = 32, .filter = 7, .quantile = 0.5, .density = 0.5, .variant = variant};
            const BlockPattern pattern =
                discover(pool_scores(scores, length, settings), length, settings);
            ASSERT_EQ(pattern.length(), length);
            for (int i = 0; i < pattern.rows(); ++i) {
                ASSERT_TRUE(pattern.at(i, i));
            }
        }
    }
}

}  // namespace
}  // namespace spion
