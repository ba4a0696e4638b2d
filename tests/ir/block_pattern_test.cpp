#include "ir/block_pattern.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "ir/error.h"
#include "ir/head_patterns.h"
#include "tests/support/expect_error.h"
#include "tests/support/random_case.h"
#include "tests/support/seed.h"

namespace spion {
namespace {

// Element (i, j) of the L x L map.
bool computed(const BlockPattern& pattern, std::int64_t i, std::int64_t j) {
    return pattern.at(static_cast<int>(i / pattern.block()), static_cast<int>(j / pattern.block()));
}

TEST(BlockPattern, KeepsItsBits) {
    const BlockPattern pattern(40, 16, {1, 0, 1, 0, 0, 0, 0, 7, 1});
    EXPECT_EQ(pattern.length(), 40);
    EXPECT_EQ(pattern.block(), 16);
    EXPECT_EQ(pattern.rows(), 3);
    EXPECT_EQ(pattern.block_count(), 4);
    EXPECT_EQ(std::vector<std::int32_t>(pattern.row(0).begin(), pattern.row(0).end()),
              (std::vector<std::int32_t>{0, 2}));
    EXPECT_TRUE(pattern.row(1).empty());
    EXPECT_TRUE(pattern.at(2, 1));
    EXPECT_FALSE(pattern.at(1, 1));
    EXPECT_EQ(pattern.block_rows(0), 16);
    EXPECT_EQ(pattern.block_rows(2), 8);
    EXPECT_EQ(pattern.elements_in_row(0), 16 + 8);
    EXPECT_EQ(pattern.elements_in_row(1), 0);
    EXPECT_EQ(pattern.to_bits(), "101\n000\n011\n");
}

TEST(BlockPattern, RefusesWhatItCannotHold) {
    expect_error<UserError>([] { BlockPattern::full(64, 24); },
                            "block 24 is not allowed: use 16, 32, 64 or 128");
    expect_error<UserError>([] { BlockPattern::full(0, 16); }, "sequence length 0 is out of range");
    expect_error<UserError>([] { BlockPattern(40, 16, std::vector<std::uint8_t>(8)); },
                            "a pattern of 8 bits was given: length 40 in blocks of 16 needs 3 x 3");
    expect_error<UserError>([] { BlockPattern::empty(std::int64_t{1} << 30, 16); },
                            "use a larger block or a shorter sequence");
    const BlockPattern pattern = BlockPattern::full(40, 16);
    expect_error<InternalError>([&] { pattern.row(3); }, "block row 3 of a pattern with 3");
    expect_error<InternalError>([&] { pattern.block_rows(-1); }, "block -1");
    expect_error<UserError>([&] { pattern.to_art(0); }, "width 0");
}

TEST(BlockPattern, FullAndEmpty) {
    for (int block : {16, 32, 64, 128}) {
        const BlockPattern full = BlockPattern::full(300, block);
        EXPECT_EQ(full.density(), 1.0);
        EXPECT_EQ(full.block_count(), std::int64_t{full.rows()} * full.rows());
        EXPECT_EQ(full.elements_in_row(0), 300);
        const BlockPattern empty = BlockPattern::empty(300, block);
        EXPECT_EQ(empty.density(), 0.0);
        EXPECT_EQ(empty.block_count(), 0);
    }
}

TEST(BlockPattern, AFullOneIsTheSameInOtherBlocks) {
    const BlockPattern full = BlockPattern::full(300, 700, 64);
    for (const int block : {16, 32, 64, 128}) {
        EXPECT_EQ(full.in_blocks_of(block), BlockPattern::full(300, 700, block));
    }
    const BlockPattern large = full.in_blocks_of(BlockPattern::kFullBlock);
    EXPECT_TRUE(large.is_full());
    EXPECT_EQ(large.to_bits(), "111\n111\n");
    EXPECT_EQ(large.block_rows(1), 300 - 256);
    EXPECT_EQ(large.elements_in_row(1), 700);
    EXPECT_EQ(large.in_blocks_of(64), full);
    EXPECT_EQ(large.transpose(), BlockPattern::full(700, 300, 64).in_blocks_of(256));

    std::vector<std::uint8_t> bits(5 * 11, 1);
    bits[7] = 0;
    const BlockPattern holed(300, 700, 64, bits);
    EXPECT_FALSE(holed.is_full());
    expect_error<InternalError>([&] { holed.in_blocks_of(128); },
                                "a pattern of 54 of 5 x 11 blocks in blocks of another edge");
}

TEST(BlockPattern, CountsElementsAsTheMapDoes) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    for (int round = 0; round < 60; ++round) {
        const BlockPattern pattern = pick_pattern(random, pick_block(random), 6);
        const std::int64_t length = pattern.length();
        std::int64_t elements = 0;
        for (std::int64_t i = 0; i < length; ++i) {
            std::int64_t in_row = 0;
            for (std::int64_t j = 0; j < length; ++j) {
                in_row += computed(pattern, i, j) ? 1 : 0;
            }
            ASSERT_EQ(pattern.elements_in_row(static_cast<int>(i / pattern.block())), in_row);
            elements += in_row;
        }
        ASSERT_DOUBLE_EQ(pattern.density(),
                         static_cast<double>(elements) / static_cast<double>(length * length));
    }
}

TEST(BlockPattern, TransposeMirrorsAndReturns) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    for (int round = 0; round < 60; ++round) {
        const BlockPattern pattern = pick_pattern(random, pick_block(random));
        const BlockPattern mirrored = pattern.transpose();
        for (int i = 0; i < pattern.rows(); ++i) {
            for (int j = 0; j < pattern.rows(); ++j) {
                ASSERT_EQ(pattern.at(i, j), mirrored.at(j, i));
            }
        }
        ASSERT_EQ(mirrored.transpose(), pattern);
        ASSERT_EQ(mirrored.block_count(), pattern.block_count());
    }
}

// Other numbers of keys than queries.
TEST(BlockPattern, MayHaveAnotherNumberOfKeys) {
    const BlockPattern wide(40, 100, 32, {1, 0, 1, 1, 0, 0, 0, 1});
    EXPECT_EQ(wide.rows(), 2);
    EXPECT_EQ(wide.columns(), 4);
    EXPECT_EQ(wide.block_rows(1), 8);
    EXPECT_EQ(wide.block_columns(3), 4);
    EXPECT_EQ(wide.elements_in_row(0), 32 + 32 + 4);
    EXPECT_DOUBLE_EQ(wide.density(), (32.0 * 68 + 8.0 * 4) / (40 * 100));
    EXPECT_EQ(wide.to_bits(), "1011\n0001\n");
    EXPECT_EQ(parse_bits(wide.to_bits(), 40, 100, 32, "here"), wide);
    const BlockPattern tall = wide.transpose();
    EXPECT_EQ(tall.length(), 100);
    EXPECT_EQ(tall.to_bits(), "10\n00\n10\n11\n");
    EXPECT_EQ(tall.transpose(), wide);
    EXPECT_NE(wide.digest(), BlockPattern(40, 99, 32, {1, 0, 1, 1, 0, 0, 0, 1}).digest());
    EXPECT_EQ(BlockPattern::full(40, 100, 32).block_count(), 8);
    expect_error<UserError>(
        [] {
            BlockPattern(40, 100, 32, {1, 0});
        },
        "a pattern of 2 bits was given: lengths 40 and 100 in blocks of 32 needs "
        "2 x 4");
    expect_error<UserError>(
        [&] { parse_bits("10\n10\n", 40, 100, 32, "here"); },
        "here:1: row of 2 bits: lengths 40 and 100 in blocks of 32 needs 2 x 4");
}

TEST(HeadPatterns, SayHowFullAndHowUnevenTheyAre) {
    const BlockPattern full = BlockPattern::full(64, 32);
    const BlockPattern diagonal(64, 32, {1, 0, 0, 1});
    const HeadPatterns patterns(std::vector<BlockPattern>{full, diagonal});
    EXPECT_EQ(patterns.block_count(), 6);
    EXPECT_DOUBLE_EQ(patterns.density(), 0.75);
    EXPECT_DOUBLE_EQ(patterns.imbalance(), 4.0 / 3);
    EXPECT_EQ(density_text(patterns),
              "2 patterns, densities 0.5000 to 1.0000, mean 0.7500, the fullest has 1.33 times the "
              "mean");
    EXPECT_EQ(density_text(diagonal), "density 0.5000");
    EXPECT_EQ(HeadPatterns(full).digest(), full.digest());
    EXPECT_NE(patterns.digest(), HeadPatterns(std::vector<BlockPattern>{diagonal, full}).digest());
    expect_error<UserError>(
        [&] {
            HeadPatterns(std::vector<BlockPattern>{full, BlockPattern::full(64, 16)});
        },
        "give all heads of a layer the same lengths and block");
    expect_error<UserError>([] { HeadPatterns(std::vector<BlockPattern>{}); },
                            "no pattern was given");
}

TEST(BlockPattern, BitsReadBack) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    for (int round = 0; round < 60; ++round) {
        const BlockPattern pattern = pick_pattern(random, pick_block(random));
        const std::string bits = pattern.to_bits();
        ASSERT_EQ(bits.size(), static_cast<std::size_t>(pattern.rows()) * (pattern.rows() + 1));
        ASSERT_EQ(parse_bits(bits, pattern.length(), pattern.block(), "memory"), pattern);
    }
}

TEST(BlockPattern, ReadsForeignLineEnds) {
    const BlockPattern expected(32, 16, {1, 0, 1, 1});
    EXPECT_EQ(parse_bits("10\r\n11\r\n", 32, 16, "f"), expected);
    EXPECT_EQ(parse_bits("\n10\n\n\r\n11", 32, 16, "f"), expected);
}

TEST(BlockPattern, NamesTheLineOfBadBits) {
    const auto refuses = [](const std::string& text, const std::string& message) {
        expect_error<UserError>([&] { parse_bits(text, 32, 16, "file.bits"); }, message);
    };
    refuses("10\n1x\n", "file.bits:2: character 'x' is not a bit: use lines of 0 and 1");
    refuses("10\n1 1\n", "file.bits:2: character ' '");
    refuses("\n10\n110\n", "file.bits:3: row of 3 bits: length 32 in blocks of 16 needs 2 x 2");
    refuses("10\n", "file.bits: 1 rows of bits: length 32 in blocks of 16 needs 2 x 2");
    refuses("10\n11\n01\n", "file.bits: 3 rows of bits");
    refuses("", "file.bits: 0 rows of bits");
    expect_error<UserError>([] { parse_bits("1", 32, 0, "f"); }, "block 0 is not allowed");
}

TEST(BlockPattern, DigestTellsPatternsApart) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    for (int round = 0; round < 40; ++round) {
        const BlockPattern pattern = pick_pattern(random, pick(random, 0, 1) == 0 ? 32 : 64);
        const std::string digest = pattern.digest();
        ASSERT_EQ(digest.size(), 32U);
        ASSERT_EQ(digest.find_first_not_of("0123456789abcdef"), std::string::npos);
        const std::string bits = pattern.to_bits();
        ASSERT_EQ(parse_bits(bits, pattern.length(), pattern.block(), "f").digest(), digest);

        std::string flipped = bits;
        const int row = pick(random, 0, pattern.rows() - 1);
        char& bit = flipped[static_cast<std::size_t>(row * (pattern.rows() + 1) +
                                                     pick(random, 0, pattern.rows() - 1))];
        bit = bit == '0' ? '1' : '0';
        ASSERT_NE(parse_bits(flipped, pattern.length(), pattern.block(), "f").digest(), digest);
        // Same bits, one element shorter or longer; same bits, half the block and the length.
        const std::int64_t other =
            pattern.length() % pattern.block() == 1 ? pattern.length() + 1 : pattern.length() - 1;
        ASSERT_NE(parse_bits(bits, other, pattern.block(), "f").digest(), digest);
        const std::int64_t halved = std::int64_t{pattern.rows()} * pattern.block() / 2;
        ASSERT_NE(parse_bits(bits, halved, pattern.block() / 2, "f").digest(), digest);
    }
    // The length is in the digest, not only the number of blocks; so is the block, at equal length.
    EXPECT_NE(BlockPattern::full(16, 16).digest(), BlockPattern::full(16, 32).digest());
}

// Characters of a line of UTF-8.
std::size_t characters(const std::string& line) {
    return static_cast<std::size_t>(std::count_if(line.begin(), line.end(), [](char c) {
        return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
    }));
}

std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = text.find('\n', at);
        lines.push_back(text.substr(at, end - at));
        at = end == std::string::npos ? text.size() : end + 1;
    }
    return lines;
}

TEST(BlockPattern, ArtDrawsTwoRowsALine) {
    EXPECT_EQ(BlockPattern(64, 32, {1, 0, 1, 1}).to_art(), "\u2588\u2584\n");
    EXPECT_EQ(BlockPattern(64, 32, {1, 0, 0, 0}).to_art(), "\u2580 \n");
    EXPECT_EQ(BlockPattern(48, 16, {1, 0, 0, 0, 0, 0, 0, 1, 0}).to_art(), "\u2580  \n \u2580 \n");
}

TEST(BlockPattern, ArtFitsItsWidth) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    for (int round = 0; round < 60; ++round) {
        const BlockPattern pattern = pick_pattern(random, 16, 40);
        const int width = pick(random, 1, 48);
        const int nb = pattern.rows();
        const int cell = (nb + width - 1) / width;
        const int cells = (nb + cell - 1) / cell;
        ASSERT_LE(cells, width);
        const std::vector<std::string> lines = lines_of(pattern.to_art(width));
        ASSERT_EQ(lines.size(), static_cast<std::size_t>((cells + 1) / 2));
        for (const std::string& line : lines) {
            ASSERT_EQ(characters(line), static_cast<std::size_t>(cells));
        }
    }
}

TEST(BlockPattern, ArtKeepsALoneBlockWhenItShrinks) {
    std::vector<std::uint8_t> bits(100 * 100, 0);
    bits[57 * 100 + 31] = 1;
    const std::string art = BlockPattern(1600, 16, bits).to_art(10);  // cells of 10 x 10 blocks
    const std::vector<std::string> lines = lines_of(art);
    ASSERT_EQ(lines.size(), 5U);
    EXPECT_EQ(lines[2], "   \u2584      ");
    EXPECT_EQ(std::count(art.begin(), art.end(), ' '), 49);
}

}  // namespace
}  // namespace spion
