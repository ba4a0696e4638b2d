#include "compiler/discovery/fixed_patterns.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "ir/error.h"
#include "tests/support/expect_error.h"

namespace spion {
namespace {

constexpr int kBlock = 16, kRows = 16;
constexpr std::int64_t kLength = kBlock * kRows;

std::string art(FixedPattern kind, double density, std::uint64_t seed = 0) {
    return fixed_pattern(kind, 8 * kBlock, kBlock, density, seed).to_bits();
}

TEST(FixedPatterns, AreWhatTheirPapersDraw) {
    EXPECT_EQ(art(FixedPattern::kWindow, 0.35),
              "11000000\n11100000\n01110000\n00111000\n00011100\n00001110\n00000111\n00000011\n");
    EXPECT_EQ(art(FixedPattern::kStrided, 0.5),
              "11001000\n11100100\n01110010\n00111001\n10011100\n01001110\n00100111\n00010011\n");
    EXPECT_EQ(art(FixedPattern::kFixed, 0.5),
              "11010001\n11010001\n00110001\n00110001\n00011101\n00011101\n00010011\n00010011\n");
}

TEST(FixedPatterns, ComeNearAnyDensity) {
    for (const double density : {0.1, 0.15, 0.25, 0.4, 0.6, 0.9, 1.0}) {
        for (const FixedPattern kind : {FixedPattern::kWindow, FixedPattern::kBigBird,
                                        FixedPattern::kStrided, FixedPattern::kFixed}) {
            SCOPED_TRACE(testing::Message() << density << ' ' << static_cast<int>(kind));
            const BlockPattern pattern = fixed_pattern(kind, kLength, kBlock, density, 5);
            EXPECT_NEAR(pattern.density(), density, 0.13);
            for (int row = 0; row < kRows; ++row) EXPECT_TRUE(pattern.at(row, row));
        }
    }
    EXPECT_EQ(fixed_pattern(FixedPattern::kWindow, kLength, kBlock, 1e-9, 0).block_count(), kRows);
}

TEST(FixedPatterns, BigBirdHasBandGlobalAndRandomBlocks) {
    const BlockPattern one = fixed_pattern(FixedPattern::kBigBird, kLength, kBlock, 0.6, 1);
    const BlockPattern other = fixed_pattern(FixedPattern::kBigBird, kLength, kBlock, 0.6, 2);
    EXPECT_NE(one, other);
    EXPECT_EQ(one, fixed_pattern(FixedPattern::kBigBird, kLength, kBlock, 0.6, 1));
    for (int i = 0; i < kRows; ++i) {
        EXPECT_TRUE(one.at(0, i) && one.at(i, 0)) << i;
        EXPECT_TRUE(i == 0 || one.at(i, i - 1)) << i;
    }
    int least = kRows, most = 0;
    for (int row = 1; row < kRows; ++row) {
        least = std::min<int>(least, static_cast<int>(one.row(row).size()));
        most = std::max<int>(most, static_cast<int>(one.row(row).size()));
    }
    EXPECT_LE(most - least, 4) << "random blocks are spread over the rows";
}

TEST(FixedPatterns, HaveNamesAndLimits) {
    EXPECT_EQ(parse_fixed_pattern("window"), FixedPattern::kWindow);
    EXPECT_EQ(parse_fixed_pattern("fixed"), FixedPattern::kFixed);
    EXPECT_FALSE(parse_fixed_pattern("discovered"));
    for (const double density : {0.0, -1.0, 1.1}) {
        expect_error<UserError>(
            [&] { fixed_pattern(FixedPattern::kWindow, kLength, kBlock, density, 0); },
            "is not allowed: choose one above 0 and up to 1");
    }
}

}  // namespace
}  // namespace spion
