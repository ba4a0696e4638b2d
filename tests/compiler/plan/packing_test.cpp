// When packing pays, what it makes of shapes and patterns, and what is refused.
#include "compiler/plan/packing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "compiler/plan/tile_candidates.h"
#include "ir/error.h"
#include "runtime/offline.h"
#include "tests/compiler/plan/plan_of.h"
#include "tests/compiler/plan/tile_cases.h"
#include "tests/support/expect_error.h"
#include "tests/support/lower_planned.h"
#include "tests/support/random_case.h"
#include "tests/support/seed.h"
#include "tools/random_pattern.h"

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

std::vector<int> packings_of(int block, const Target& target) {
    const test::Launch launch{attention_for(BlockPattern::full(256, block)), KernelRole::kForward,
                              block, target};
    return packings(launch.asked(), kernel_families());
}

TEST(Packing, FillsAThreadBlock) {
    EXPECT_EQ(packings_of(16, cuda_target(80)), (std::vector<int>{2, 4, 8}));
    EXPECT_EQ(packings_of(32, cuda_target(90)), (std::vector<int>{2, 4}));
    EXPECT_EQ(packings_of(64, cuda_target(120)), (std::vector<int>{2}));
    EXPECT_TRUE(packings_of(128, cuda_target(90)).empty());
    EXPECT_TRUE(packings_of(16, target_named("host")).empty());
}

// A packed tile of `rows` block rows, of warps that share an item.
TileShape packed_shape(int block, int rows, const Target& target) {
    const test::Launch launch{attention_for(BlockPattern::full(256, block)), KernelRole::kForward,
                              block, target};
    require_packable(launch.asked(), rows, kernel_families());
    const BlockPattern pattern = BlockPattern::full(256, block);
    const auto candidates = packed_candidates(
        launch.asked(), streamed_rows(pattern, KernelRole::kForward, rows), 1, kernel_families());
    return std::find_if(candidates.begin(), candidates.end(),
                        [](const TileCandidate& one) {
                            return !fetches_by_tma(one.shape.unit) && one.shape.streamed_rows == 64;
                        })
        ->shape;
}

TEST(Packing, ShapesHoldWholeBlockRows) {
    EXPECT_EQ(packed_shape(32, 4, cuda_target(90)), (TileShape{.stationary_rows = 128,
                                                               .streamed_rows = 64,
                                                               .gather_rows = 32,
                                                               .warps = 8,
                                                               .stages = 2,
                                                               .packed_rows = 4}));
    EXPECT_EQ(packed_shape(32, 4, target_named("host")).warps, 1);
    expect_error<UserError>([&] { packed_shape(32, 5, cuda_target(90)); },
                            "5 block rows a tile: give 2 to 4 for blocks of 32 on sm_90");
    expect_error<UserError>([&] { packed_shape(16, 0, cuda_target(80)); }, "give 2 to 8");
    expect_error<UserError>([&] { packed_shape(128, 2, cuda_target(80)); },
                            "blocks of 128 cannot share a tile on sm_80");
    expect_error<UserError>([&] { packed_shape(128, 2, target_named("host")); }, "cannot share");
}

TEST(Packing, LoweredProgramsCoverTheirPattern) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    for (int i = 0; i < 12; ++i) {
        const BlockPattern pattern = pick_pattern(random, 16 << pick(random, 0, 2), 9);
        for (const KernelRole role :
             {KernelRole::kForward, KernelRole::kQueryGradient, KernelRole::kKeyValueGradient}) {
            LaunchOptions options;
            options.packed_rows = 2;
            const TileProgram program =
                lower(attention_for(pattern), pattern, role, cuda_target(90), options);
            verify(program, pattern);
            EXPECT_EQ(program.packed_rows(), 2);
            const StreamedRows rows = streamed_rows(pattern, role, 2);
            EXPECT_EQ(static_cast<int>(rows.streamed.size()), program.tiles());
            EXPECT_EQ(summarise(rows, shape_of(program), 16), summarise(program, 16));
        }
    }
}

// Each block row multiplies its own blocks alone: as many passes as without packing.
TEST(Packing, NothingIsMultipliedInVain) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    for (int i = 0; i < 20; ++i) {
        const BlockPattern pattern = pick_pattern(random, 16 << pick(random, 0, 1), 12);
        const int rows = 2 << pick(random, 0, 1), block = pattern.block();
        const TileShape alone{.stationary_rows = block,
                              .streamed_rows = 64,
                              .gather_rows = block,
                              .warps = block / 16,
                              .stages = 2};
        const TileShape packed = packed_shape(block, rows, cuda_target(90));
        const WalkSummary before =
            summarise(streamed_rows(pattern, KernelRole::kForward), alone, 16);
        const WalkSummary after =
            summarise(streamed_rows(pattern, KernelRole::kForward, rows), packed, 16);
        EXPECT_EQ(before.multiplied, after.multiplied) << pattern.to_bits();
        EXPECT_LE(after.streamed, before.streamed);
        EXPECT_EQ(static_cast<double>(after.streamed) == 0, before.streamed == 0);
    }
}

TEST(Packing, WhatDoesNotFitIsRefused) {
    Attention attention = attention_for(BlockPattern::full(256, 32), 128);
    attention.dtype = DType::kFp32;
    const auto packed = [&](int head_dim, KernelRole role, int rows, const Target& target) {
        attention.head_dim = head_dim;
        LaunchOptions options;
        options.packed_rows = rows;
        return lower(attention, BlockPattern::full(256, 32), role, target, options);
    };
    expect_error<UserError>(
        [&] { packed(128, KernelRole::kQueryGradient, 4, cuda_target(86)); },
        "4 block rows of 32 in a tile of attention_query_gradient for D=128 fp32 do not fit sm_86 "
        "(shared memory: 164352 bytes of 101376): pack fewer rows");
    expect_error<UserError>([&] { packed(160, KernelRole::kKeyValueGradient, 2, cuda_target(90)); },
                            "do not fit sm_90a (dV and dK are computed one after the other, and "
                            "the body does not pack then)");
    expect_error<UserError>([&] { packed(64, KernelRole::kForward, 5, cuda_target(90)); },
                            "give 2 to 4 for blocks of 32 on sm_90a, or 1 for none");
    EXPECT_EQ(packed(160, KernelRole::kForward, 2, cuda_target(90)).packed_rows(), 2);
}

// The band and the stripes that training finds, and chance. Packing gains most at D = 128, for
// which warps have no items of their own.
class ChosenPacking : public testing::Test {
  protected:
    TileProgram program(const BlockPattern& pattern, KernelRole role, const Target& target,
                        std::optional<int> rows = {}, int head_dim = 64) {
        LaunchOptions options;
        options.packed_rows = rows;
        return lower(attention_for(pattern, head_dim), pattern, role, target, options);
    }
    std::string why(const BlockPattern& pattern, int head_dim, std::optional<int> rows = {}) {
        return test::explain_launch(attention_for(pattern, head_dim), pattern, KernelRole::kForward,
                                    cuda_target(90), kPlannedBatch, rows);
    }

    BlockPattern striped_ = striped_pattern(8192, 32, 3, 12, 1);
    BlockPattern chance_ = random_pattern(8192, 32, 0.05, 1);
};

TEST_F(ChosenPacking, IsWhereItIsPredictedToGain) {
    const TileProgram packed = program(striped_, KernelRole::kForward, cuda_target(90), {}, 128);
    EXPECT_EQ(packed.packed_rows(), 2);
    EXPECT_EQ(packed.unit, MatrixUnit::kWgmma);
    verify(packed, striped_);
    for (const KernelRole role : kEveryRole) {
        EXPECT_EQ(program(chance_, role, cuda_target(90)).packed_rows(), 1) << to_string(role);
    }
    EXPECT_EQ(program(striped_, KernelRole::kForward, host_with(2)).packed_rows(), 1);
}

TEST_F(ChosenPacking, IsLeftOutOrForcedWhereThatIsAsked) {
    EXPECT_EQ(program(striped_, KernelRole::kForward, cuda_target(90), 1).packed_rows(), 1);
    EXPECT_EQ(program(chance_, KernelRole::kForward, cuda_target(90), 4).packed_rows(), 4);
    EXPECT_EQ(program(chance_, KernelRole::kForward, host_with(2), 3).packed_rows(), 3);
}

TEST_F(ChosenPacking, IsExplained) {
    EXPECT_NE(why(striped_, 128).find("\npacked: 5"), std::string::npos) << why(striped_, 128);
    EXPECT_NE(why(striped_, 128).find("faster than 32/64 x2 (--pack 1 leaves that out)"),
              std::string::npos);
    EXPECT_NE(why(chance_, 64).find("\nnot packed: "), std::string::npos) << why(chance_, 64);
    EXPECT_NE(why(chance_, 64).find("and to pack takes 10 %"), std::string::npos);
    EXPECT_NE(why(striped_, 128, 1).find("not packed, as was asked"), std::string::npos);
    // Few items: single warps are predicted to beat warpgroups, but better still when not packed.
    const BlockPattern small = random_pattern(640, 64, 0.6, 1);
    Attention attention = attention_for(small, 32);
    attention.heads = 12;
    const std::string few =
        test::explain_launch(attention, small, KernelRole::kForward, cuda_target(90), 3);
    EXPECT_NE(few.find("but others are faster without packing"), std::string::npos) << few;
    EXPECT_NE(why(chance_, 64, 2).find("packed, as was asked: "), std::string::npos);
}

}  // namespace
}  // namespace spion
