// When packing pays, what it makes of shapes and patterns, and what is refused.
#include "compiler/packing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "compiler/tile_candidates.h"
#include "ir/error.h"
#include "runtime/offline.h"
#include "tests/support/expect_error.h"
#include "tests/support/random_case.h"
#include "tests/support/seed.h"

namespace spion {
namespace {

Attention attention_for(const BlockPattern& pattern, int head_dim = 32) {
    return {.heads = 2,
            .head_dim = head_dim,
            .length = pattern.length(),
            .dtype = DType::kBf16,
            .scale = 1};
}

// Rows of groups of `shared` use the same two blocks, other groups others.
BlockPattern grouped(int block, int rows, int shared) {
    std::vector<std::uint8_t> bits(static_cast<std::size_t>(rows * rows));
    for (int row = 0; row < rows; ++row) {
        const int group = row / shared;
        bits[static_cast<std::size_t>(row * rows + 2 * group % rows)] = 1;
        bits[static_cast<std::size_t>(row * rows + (2 * group + 1) % rows)] = 1;
    }
    return BlockPattern(std::int64_t{block} * rows, block, std::move(bits));
}

BlockPattern diagonal(int block, int rows) {
    std::vector<std::uint8_t> bits(static_cast<std::size_t>(rows * rows));
    for (int row = 0; row < rows; ++row) bits[static_cast<std::size_t>(row * rows + row)] = 1;
    return BlockPattern(std::int64_t{block} * rows, block, std::move(bits));
}

TEST(Packing, SharesAreThoseOfTheUnions) {
    EXPECT_DOUBLE_EQ(streamed_share(grouped(16, 8, 4), 4), 0.25);
    EXPECT_DOUBLE_EQ(streamed_share(grouped(16, 8, 4), 2), 0.5);
    EXPECT_DOUBLE_EQ(streamed_share(grouped(16, 8, 2), 4), 0.5);
    EXPECT_DOUBLE_EQ(streamed_share(diagonal(16, 7), 4), 1);
    EXPECT_DOUBLE_EQ(streamed_share(BlockPattern::empty(100, 16), 2), 1);
    EXPECT_DOUBLE_EQ(streamed_share(BlockPattern::full(48, 16), 2), 2.0 / 3);  // 3 rows, 2 tiles
}

TEST(Packing, IsTriedWhereHalfOfTheBlocksOrLessStream) {
    EXPECT_EQ(rows_worth_packing(grouped(16, 16, 4)), 4);
    EXPECT_EQ(rows_worth_packing(grouped(32, 16, 2)), 2);
    EXPECT_EQ(rows_worth_packing(grouped(64, 16, 4)), 1);  // a block fills four warps
    EXPECT_EQ(rows_worth_packing(diagonal(16, 16)), 1);
    EXPECT_EQ(rows_worth_packing(BlockPattern::empty(100, 16)), 1);
    // Pairs share everything, but pairs of pairs nothing: 0.5 at 4 rows too.
    EXPECT_EQ(rows_worth_packing(grouped(16, 16, 2)), 4);
    EXPECT_EQ(rows_worth_packing(BlockPattern::full(48, 16)), 4);
    EXPECT_EQ(rows_worth_packing(BlockPattern::full(96, 32)), 1);  // 2/3: the last tile is half
}

TEST(Packing, ShapesHoldWholeBlockRows) {
    const TileShape shape{
        .stationary_rows = 16, .streamed_rows = 64, .granule = 32, .warps = 1, .stages = 2};
    const TileShape packed = packed_shape(shape, 32, 4, cuda_target(90));
    EXPECT_EQ(packed, (TileShape{128, 64, 32, 8, 2}));
    EXPECT_EQ(packed_shape(shape, 32, 4, target_named("host")).warps, 1);
    expect_error<UserError>([&] { packed_shape(shape, 32, 5, cuda_target(90)); },
                            "5 block rows a tile: give 2 to 4 for blocks of 32 on sm_90");
    expect_error<UserError>([&] { packed_shape(shape, 16, 0, cuda_target(80)); }, "give 2 to 8");
    expect_error<UserError>([&] { packed_shape(shape, 128, 2, cuda_target(80)); },
                            "blocks of 128 cannot share a tile on sm_80");
    expect_error<UserError>([&] { packed_shape(shape, 128, 2, target_named("host")); },
                            "cannot share");
}

TEST(Packing, LoweredProgramsCoverTheirPattern) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    for (int i = 0; i < 12; ++i) {
        const BlockPattern pattern = pick_pattern(random, 16 << pick(random, 0, 2), 9);
        for (const KernelRole role :
             {KernelRole::kForward, KernelRole::kQueryGradient, KernelRole::kKeyValueGradient}) {
            LowerOptions options;
            options.packed_rows = 2;
            const TileProgram program =
                lower(attention_for(pattern), pattern, role, cuda_target(90), options);
            verify(program, pattern);
            EXPECT_EQ(program.packed_rows(), 2);
            const StreamedRows rows = packed_streamed_rows(pattern, role, 2);
            EXPECT_EQ(static_cast<int>(rows.streamed.size()), program.tiles());
            const WalkSummary told = summarise(rows, shape_of(program), 16);
            const WalkSummary walked = summarise(program, 16);
            EXPECT_EQ(told.streamed, walked.streamed);
            EXPECT_EQ(told.steps, walked.steps);
            EXPECT_EQ(told.distinct, walked.distinct);
        }
    }
}

TEST(Packing, WhatDoesNotFitIsRefused) {
    Attention attention = attention_for(BlockPattern::full(256, 32), 128);
    attention.dtype = DType::kFp32;
    LowerOptions options;
    options.packed_rows = 4;
    expect_error<UserError>(
        [&] {
            lower(attention, BlockPattern::full(256, 32), KernelRole::kQueryGradient,
                  cuda_target(86), options);
        },
        "4 block rows of 32 in a tile of attention_query_gradient for D=128 do not fit sm_86");
}

TEST(Packing, CandidatesArePackedOnlyWhereItPays) {
    const auto packed = [](const BlockPattern& pattern, KernelRole role) {
        const auto candidates =
            tile_candidates(attention_for(pattern), pattern, role, cuda_target(90), 8);
        return std::count_if(candidates.begin(), candidates.end(), [&](const TileCandidate& c) {
            return c.shape.stationary_rows > pattern.block() && c.prediction.has_value();
        });
    };
    EXPECT_GT(packed(grouped(16, 16, 4), KernelRole::kForward), 0);
    EXPECT_EQ(packed(diagonal(16, 16), KernelRole::kForward), 0);
    EXPECT_EQ(packed(grouped(64, 16, 4), KernelRole::kForward), 0);
    // What nobody has asked for stays unpacked.
    EXPECT_EQ(lower(attention_for(grouped(16, 16, 4)), grouped(16, 16, 4), KernelRole::kForward,
                    cuda_target(90))
                  .packed_rows(),
              1);
}

}  // namespace
}  // namespace spion
