// Patterns from what others call theirs: the same bits from each, and a sentence for what is none.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "spion/spion.h"
#include "tests/api/expect_status.h"
#include "tests/api/oracle.h"
#include "tests/support/seed.h"

namespace spion::test {
namespace {

constexpr std::int64_t kLength = 300;  // 10 blocks of 32, 3 of 128

template <typename Action>
void expect_user_error(const Action& action, const std::string& words) {
    expect_status<UserError>(action, words);
}

class ApiPattern : public testing::Test {
  protected:
    std::vector<std::uint8_t> bits_ = oracle::random_bits(kLength, 32, 0.3, fresh_seed());
    const Pattern pattern_ = Pattern::from_bits(kLength, 32, bits_);
};

TEST_F(ApiPattern, ComesBackAsBitsAndText) {
    EXPECT_EQ(pattern_.bits(), bits_);
    EXPECT_EQ(pattern_.rows(), 10);
    EXPECT_EQ(pattern_.length(), kLength);
    EXPECT_EQ(pattern_.block(), 32);
    EXPECT_EQ(Pattern::from_text(kLength, 32, pattern_.text()).bits(), bits_);
    EXPECT_EQ(pattern_.digest().size(), 32U);
    EXPECT_EQ(Pattern::from_bits(kLength, 32, bits_).digest(), pattern_.digest());
    std::int64_t count = 0;
    double elements = 0;
    for (std::size_t i = 0; i < bits_.size(); ++i) {
        const double rows = i / 10 == 9 ? 12 : 32, columns = i % 10 == 9 ? 12 : 32;
        count += bits_[i];
        elements += bits_[i] != 0 ? rows * columns : 0;
    }
    EXPECT_EQ(pattern_.block_count(), count);
    EXPECT_DOUBLE_EQ(pattern_.density(), elements / (300.0 * 300.0));
    EXPECT_EQ(Pattern::full(kLength, 32).block_count(), 100);
    EXPECT_FALSE(pattern_.picture(20).empty());
}

TEST_F(ApiPattern, IsTransposed) {
    const std::vector<std::uint8_t> turned = pattern_.transpose().bits();
    for (std::size_t row = 0; row < 10; ++row) {
        for (std::size_t column = 0; column < 10; ++column) {
            EXPECT_EQ(turned[column * 10 + row], bits_[row * 10 + column]);
        }
    }
    EXPECT_EQ(pattern_.transpose().transpose().digest(), pattern_.digest());
}

TEST_F(ApiPattern, IsReadFromCompressedRows) {
    std::vector<std::int32_t> offsets = {0}, columns;
    for (std::size_t row = 0; row < 10; ++row) {
        for (int column = 9; column >= 0; --column) {  // in any order
            if (bits_[row * 10 + static_cast<std::size_t>(column)] != 0) columns.push_back(column);
        }
        offsets.push_back(static_cast<std::int32_t>(columns.size()));
    }
    EXPECT_EQ(Pattern::from_csr(kLength, 32, offsets, columns).bits(), bits_);
    std::vector<std::int32_t> wrong = columns;
    wrong[0] = 10;
    expect_user_error([&] { Pattern::from_csr(kLength, 32, offsets, wrong); },
                      "columns are 0 to 9");
    wrong = offsets;
    wrong.pop_back();
    expect_user_error([&] { Pattern::from_csr(kLength, 32, wrong, columns); }, "10 offsets");
    wrong = offsets;
    wrong[10] += 1;
    expect_user_error([&] { Pattern::from_csr(kLength, 32, wrong, columns); }, "offsets go from");
    wrong = offsets;
    wrong[3] = wrong[10] + 4;
    expect_user_error([&] { Pattern::from_csr(kLength, 32, wrong, columns); }, "must not descend");
    expect_user_error(
        [&] {
            Pattern::from_csr(kLength, 128, std::vector<std::int32_t>{0, 2, 2, 2},
                              std::vector<std::int32_t>{1, 1});
        },
        "a second time");
}

// As torch makes them: the indices of a row that count come first, the others follow.
TEST_F(ApiPattern, IsReadFromABlockMask) {
    constexpr std::int64_t kPitch = 12;
    std::vector<std::int32_t> counts(10), full_counts(10);
    std::vector<std::int32_t> indices(10 * kPitch, -7), full_indices(10 * kPitch, -7);
    for (std::size_t row = 0; row < 10; ++row) {
        for (std::size_t column = 0; column < 10; ++column) {
            if (bits_[row * 10 + column] == 0) continue;
            const bool full = (row + column) % 2 == 0;
            std::int32_t& count = full ? full_counts[row] : counts[row];
            (full ? full_indices : indices)[row * kPitch + static_cast<std::size_t>(count++)] =
                static_cast<std::int32_t>(column);
        }
    }
    spion_block_mask mask = SPION_BLOCK_MASK_INIT;
    mask.rows = 10;
    mask.row_pitch = kPitch;
    mask.kv_num_blocks = counts.data();
    mask.kv_indices = indices.data();
    mask.full_kv_num_blocks = full_counts.data();
    mask.full_kv_indices = full_indices.data();
    EXPECT_EQ(Pattern::from_block_mask(kLength, 32, mask).bits(), bits_);
    mask.full_kv_indices = nullptr;
    expect_user_error([&] { Pattern::from_block_mask(kLength, 32, mask); }, "give both or none");
    mask.full_kv_num_blocks = nullptr;
    EXPECT_LT(Pattern::from_block_mask(kLength, 32, mask).block_count(), pattern_.block_count());
    expect_user_error([&] { Pattern::from_block_mask(kLength, 64, mask); }, "BLOCK_SIZE");
    counts[4] = 11;
    expect_user_error([&] { Pattern::from_block_mask(kLength, 32, mask); }, "lists 11 blocks");
    counts[4] = 1;
    indices[4 * kPitch] = 10;
    expect_user_error([&] { Pattern::from_block_mask(kLength, 32, mask); }, "has column 10");
    mask.kv_indices = nullptr;
    expect_user_error([&] { Pattern::from_block_mask(kLength, 32, mask); }, "kv_indices is null");
}

TEST_F(ApiPattern, IsReadFromLayoutsOfEqualHeads) {
    std::vector<std::int64_t> layout;
    for (int head = 0; head < 3; ++head) layout.insert(layout.end(), bits_.begin(), bits_.end());
    const auto read = [&] {
        return Pattern::from_layout<std::int64_t>(kLength, 32, layout, 3, 10, 10);
    };
    EXPECT_EQ(read().bits(), bits_);
    layout[2 * 100 + 37] ^= 1;
    expect_user_error(read, "head 2 has another layout than head 0 (row 3, column 7)");
    expect_user_error([&] { Pattern::from_layout<std::int64_t>(kLength, 64, layout, 3, 10, 10); },
                      "blocks of 64");
    expect_user_error([&] { Pattern::from_layout<std::int64_t>(kLength, 32, layout, 2, 10, 10); },
                      "heads * rows * columns");
    const std::vector<std::int16_t> narrow(100, 1);
    expect_user_error([&] { Pattern::from_layout<std::int16_t>(kLength, 32, narrow, 1, 10, 10); },
                      "elements of 2 bytes");
}

TEST_F(ApiPattern, IsReadFromABaseBlockmask) {
    const std::vector<std::uint8_t> bits = {1, 0, 0, 1, 1, 0, 0, 1, 1};
    std::vector<std::int32_t> mask;
    for (int copy = 0; copy < 4; ++copy) mask.insert(mask.end(), bits.begin(), bits.end());
    const Pattern pattern = Pattern::from_base_blockmask<std::int32_t>(kLength, mask, 2, 2, 3, 3);
    EXPECT_EQ(pattern.bits(), bits);
    EXPECT_EQ(pattern.block(), 128);
    mask[9] = 0;
    expect_user_error(
        [&] { Pattern::from_base_blockmask<std::int32_t>(kLength, mask, 2, 2, 3, 3); },
        "head 1 has another layout");
    expect_user_error(
        [&] { Pattern::from_base_blockmask<std::int32_t>(kLength, mask, 4, 1, 1, 9); },
        "base_blockmask");
}

TEST_F(ApiPattern, RefusesWhatIsNone) {
    expect_user_error([&] { Pattern::from_bits(kLength, 64, bits_); }, "100 bits");
    expect_user_error([&] { Pattern::from_text(kLength, 32, "10\n0x\n"); }, "the pattern's text");
    expect_user_error([] { Pattern::full(0, 32); }, "length 0");
    expect_user_error([&] { pattern_.picture(-1); }, "-1 columns");
    EXPECT_EQ(spion_pattern_full(8, 16, nullptr), SPION_INVALID);
    EXPECT_STREQ(spion_last_error(), "pattern is null: pass one");
}

TEST_F(ApiPattern, IsDiscoveredInAMapOfScores) {
    // Heavy scores on the diagonal and in one column of blocks.
    constexpr std::int64_t kSide = 128;
    std::vector<float> scores(kSide * kSide, 0.001F);
    for (std::int64_t i = 0; i < kSide; ++i) {
        scores[static_cast<std::size_t>(i * kSide + i)] = 0.5F;
        scores[static_cast<std::size_t>(i * kSide + 20)] = 0.3F;
    }
    const Pattern found =
        discover_scores({.block = 16, .filter = 3, .quantile = 0.8}, kSide, scores);
    for (std::size_t row = 0; row < 8; ++row) {
        EXPECT_EQ(found.bits()[row * 8 + row], 1) << found.text();
    }
    EXPECT_LT(found.block_count(), 64);
    expect_user_error([&] { discover_scores({.block = 24}, kSide, scores); }, "block");
    expect_user_error([&] { discover_scores({.quantile = 1.5}, kSide, scores); }, "quantile");
    expect_user_error([&] { discover_scores({}, kSide - 1, scores); }, "length * length");
}

}  // namespace
}  // namespace spion::test
