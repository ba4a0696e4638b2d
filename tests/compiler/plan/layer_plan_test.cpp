// What a plan says is what is lowered, emitted and predicted; what was asked for is what is planned.
#include "compiler/plan/layer_plan.h"

#include <gtest/gtest.h>

#include "codegen/emit.h"
#include "compiler/lower.h"
#include "ir/error.h"
#include "ir/verify.h"
#include "tests/compiler/plan/tile_cases.h"
#include "tests/support/expect_error.h"
#include "tests/support/seed.h"

namespace spion {
namespace {

Attention attention_of(std::int64_t length, int head_dim = 64, DType dtype = DType::kBf16) {
    return {.heads = 2, .head_dim = head_dim, .length = length, .dtype = dtype, .scale = 0.125F};
}

TEST(LayerPlan, IsWhatIsLoweredAndPredicted) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    for (int round = 0; round < 40; ++round) {
        Target target = pick_target(random);
        const BlockPattern pattern = pick_pattern(random, pick_block(random), 12);
        Attention attention = pick_attention(random, pattern.length());
        if (target.back_end == BackEnd::kHost) {
            attention.dtype = DType::kFp32;
        }
        const LayerPlan plan =
            plan_layer(attention, pattern, target, {.batch = pick(random, 1, 64)});
        const LayerPrograms programs = lower_layer(plan, pattern);
        for (std::size_t i = 0; i < programs.size(); ++i) {
            const LaunchPlan& launch = plan.launches[i];
            const auto& [program, kernel] = programs[i];
            SCOPED_TRACE(to_text(program, false) + target.arch);
            verify(program, pattern);
            EXPECT_EQ(launch_of(launch.role), i);
            EXPECT_EQ(shape_of(program), launch.shape);
            // A program without its plan is planned the same.
            const PlannedKernel again = plan_kernel(program, target, kernel_families());
            EXPECT_EQ(again.family, launch.kernel.family);
            EXPECT_EQ(again.plan, launch.kernel.plan);
            EXPECT_EQ(kernel.plan, launch.kernel.plan);
            EXPECT_EQ(kernel.plan.problem, "");
            ASSERT_TRUE(launch.prediction);
            EXPECT_DOUBLE_EQ(predict(program, plan.batch, target).seconds,
                             launch.prediction->seconds);
            EXPECT_EQ(launch.rivals.size() + 1, launch.candidates.size());
        }
    }
}

TEST(LayerPlan, TakesTheShapeThatWasAskedFor) {
    const BlockPattern pattern = BlockPattern::full(512, 64);
    const Target target = cuda_target(90);
    const TileShape shape{64, 32, 32, 4, 1};
    PlanOptions options;
    options.shapes[2] = shape;
    const LayerPlan plan = plan_layer(attention_of(512), pattern, target, options);
    EXPECT_EQ(plan.roles, kSplitBackwardRoles);  // the shape is of a launch of theirs
    const auto [program, kernel] = lower_launch(plan, plan.launches[2], pattern);
    EXPECT_EQ(shape_of(program), shape);
    EXPECT_EQ(kernel.plan.geometry, geometry(program, target));
    EXPECT_FALSE(plan.launches[0].given);
    EXPECT_NE(plan.launches[0].kernel.family, nullptr);

    options.shapes[2]->stages = 100;
    expect_error<UserError>(
        [&] {
            const LayerPlan larger = plan_layer(attention_of(512), pattern, target, options);
            lower_launch(larger, larger.launches[2], pattern);
        },
        "bytes of shared memory, and sm_90a has 232448");
    options.shapes[2]->unit = MatrixUnit::kVector;
    expect_error<UserError>(
        [&] {
            const LayerPlan host = plan_layer(attention_of(512), pattern, target, options);
            lower_launch(host, host.launches[2], pattern);
        },
        "unit=vector, which sm_90a has not: name target host");
}

TEST(LayerPlan, TakesTheBackwardThatIsAskedForOrPredictedFaster) {
    const BlockPattern full = BlockPattern::full(4096, 128);
    const Target target = cuda_target(90);
    const Attention attention = attention_of(4096, 128);
    const auto roles = [&](const PlanOptions& options) {
        return plan_layer(attention, full, target, options).roles;
    };
    EXPECT_EQ(roles({}), kFusedBackwardRoles);
    EXPECT_EQ(roles({.density = 0.02}), kSplitBackwardRoles);
    EXPECT_EQ(roles({.tables = Tables::kBaked}), kSplitBackwardRoles);
    EXPECT_EQ(roles({.roles = kSplitBackwardRoles}), kSplitBackwardRoles);
    EXPECT_EQ(roles({.roles = kFusedBackwardRoles, .density = 0.02}), kFusedBackwardRoles);
}

// A full pattern in blocks of its own, and as its kernels would have it.
TEST(LayerPlan, CutsFullPatternsAsTheirKernelsLikeThem) {
    const Target target = cuda_target(90);
    for (const int block : {16, 32, 64, 128}) {
        for (const int head_dim : {32, 64, 128}) {
            const Attention attention = attention_of(1000, head_dim);
            const BlockPattern full = BlockPattern::full(1000, block);
            const auto blocks = [&](const Attention& asked, const PlanOptions& options) {
                const LayerPlan plan = plan_layer(asked, full, target, options);
                for (const auto& [program, kernel] : lower_layer(plan, full)) {
                    verify(program, full);
                    EXPECT_EQ(kernel.plan, plan_kernel(program, target, kernel_families()).plan);
                    EXPECT_TRUE(program.block_row_masks.empty() || program.block < 64);
                }
                return std::array{plan.launches[0].block, plan.launches[1].block,
                                  plan.launches[2].block};
            };
            const std::array own{block, block, block};
            EXPECT_EQ(blocks(attention, {}), own);
            EXPECT_EQ(blocks(attention, {.packed_rows = 1}), own);
            const bool fused = head_dim > 32;
            EXPECT_EQ(blocks(attention, {.roles = kSplitBackwardRoles, .cut_full = true}),
                      (std::array{256, 256, 256}));
            EXPECT_EQ(blocks(attention, {.cut_full = true})[2], fused ? 128 : 256);
            Attention masked = attention;
            masked.mask = ElementMask::kCausal;
            EXPECT_EQ(blocks(masked, {.cut_full = true}), own);
            Attention exact = attention;  // has no kernels of wgmma
            exact.dtype = DType::kTf32;
            EXPECT_EQ(blocks(exact, {.cut_full = true}), own);
        }
    }
    const BlockPattern holed(512, 64, [] {
        std::vector<std::uint8_t> bits(64, 1);
        bits[9] = 0;
        return bits;
    }());
    EXPECT_EQ(plan_layer(attention_of(512), holed, target, {.cut_full = true}).launches[0].block,
              64);
}

TEST(LayerPlan, OnlyTheLaunchesThatWereAskedForArePlanned) {
    PlanOptions options;
    options.launches = {false, true, false};
    const LayerPlan plan =
        plan_layer(attention_of(512), BlockPattern::full(512, 64), cuda_target(80), options);
    EXPECT_EQ(plan.launches[0].kernel.family, nullptr);
    EXPECT_NE(plan.launches[1].kernel.family, nullptr);
    EXPECT_EQ(plan.launches[2].kernel.family, nullptr);
}

TEST(LayerPlan, ALaunchMayTakeAnotherOfItsCandidates) {
    LaunchPlan launch = plan_launch(attention_of(512), BlockPattern::full(512, 64),
                                    KernelRole::kForward, cuda_target(90));
    ASSERT_FALSE(launch.rivals.empty());
    const TileCandidate rival = launch.candidates[launch.rivals.front().candidate];
    take_shape(launch, rival.shape);
    EXPECT_EQ(launch.shape, rival.shape);
    EXPECT_EQ(launch.kernel.plan, rival.plan);
    EXPECT_EQ(launch.prediction->seconds, rival.prediction->seconds);
    TileShape foreign = rival.shape;
    foreign.stages = 77;
    expect_error<InternalError>([&] { take_shape(launch, foreign); }, "is no candidate");
}

TEST(LayerPlan, RefusesAPatternOfAnotherLength) {
    expect_error<UserError>(
        [] { plan_layer(attention_of(512), BlockPattern::full(640, 64), cuda_target(80)); },
        "the pattern is for length 640 and the attention for length 512");
}

}  // namespace
}  // namespace spion
