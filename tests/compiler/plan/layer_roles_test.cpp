// Which kernels compute a layer's gradients.
#include "compiler/plan/layer_roles.h"

#include <gtest/gtest.h>

#include "compiler/plan/layer_plan.h"
#include "ir/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/lower_planned.h"

namespace spion {
namespace {

Attention attention_of(int head_dim, DType dtype = DType::kBf16) {
    return {.heads = 16, .head_dim = head_dim, .length = 16384, .dtype = dtype, .scale = 0.1F};
}

// Of patterns that have `density` of the blocks.
LayerPlan plan_of(const Attention& attention, int block, double density, const Target& target,
                  Tables tables = Tables::kPassed) {
    PlanOptions options{.batch = 2, .tables = tables, .density = density};
    return plan_layer(attention, BlockPattern::full(attention.length, block), target, options);
}

LayerRoles roles_of(const Attention& attention, int block, double density, const Target& target,
                    Tables tables = Tables::kPassed) {
    return plan_of(attention, block, density, target, tables).roles;
}

std::string why_not_fused(const Attention& attention, int block, const Target& target) {
    return plan_of(attention, block, 1, target).backward.why_not_fused;
}

std::string explain_roles(const Attention& attention, const BlockPattern& pattern,
                          const Target& target) {
    return explain_roles(plan_layer(attention, pattern, target, {.batch = 2}));
}

// As measured (docs/journal.md): steps of an item wait for partial dQs of others, which weighs
// where an item has few.
TEST(LayerRoles, FusedWhereItemsHaveManySteps) {
    const Target hopper = cuda_target(90);
    for (const int head_dim : {64, 128}) {
        EXPECT_EQ(roles_of(attention_of(head_dim), 128, 1, hopper), kFusedBackwardRoles);
        EXPECT_EQ(roles_of(attention_of(head_dim), 128, 0.05, hopper), kFusedBackwardRoles);
        EXPECT_EQ(roles_of(attention_of(head_dim), 128, 0.02, hopper), kSplitBackwardRoles);
    }
}

TEST(LayerRoles, ThePatternDecidesUnlessADensityIsGiven) {
    const Target hopper = cuda_target(90);
    const Attention attention = attention_of(64);
    std::vector<std::uint8_t> bits(std::size_t{128} * 128);
    for (std::size_t at = 0; at < bits.size(); at += 129) bits[at] = 1;
    const BlockPattern diagonal(attention.length, 128, bits);
    const LayerPlan plan = plan_layer(attention, diagonal, hopper, {.batch = 2});
    EXPECT_EQ(plan.roles, kSplitBackwardRoles);
    EXPECT_DOUBLE_EQ(plan.backward.density, 1.0 / 128);
    EXPECT_EQ(plan_layer(attention, diagonal, hopper, {.batch = 2, .density = 1}).roles,
              kFusedBackwardRoles);
    EXPECT_EQ(plan_layer(attention, BlockPattern::full(attention.length, 128), hopper).roles,
              kFusedBackwardRoles);
}

TEST(LayerRoles, SplitWhereThereIsNoFusedKernel) {
    const Target hopper = cuda_target(90);
    EXPECT_EQ(roles_of(attention_of(64), 64, 1, hopper), kSplitBackwardRoles);
    EXPECT_EQ(roles_of(attention_of(32), 128, 1, hopper), kSplitBackwardRoles);
    EXPECT_EQ(roles_of(attention_of(64, DType::kTf32), 128, 1, hopper), kSplitBackwardRoles);
    EXPECT_EQ(roles_of(attention_of(64), 128, 1, cuda_target(80)), kSplitBackwardRoles);
    EXPECT_EQ(roles_of(attention_of(64), 128, 1, hopper, Tables::kBaked), kSplitBackwardRoles);
    EXPECT_FALSE(plan_of(attention_of(64), 64, 1, hopper).backward.fused.has_value());
    EXPECT_EQ(why_not_fused(attention_of(64), 128, hopper), "");
    EXPECT_EQ(why_not_fused(attention_of(64), 64, hopper),
              "kernels of the fused backward take bf16 or fp16, D and Dv of at most 128, one of "
              "them above 32, and blocks of 128, not bf16, D=64, Dv=64 and blocks of 64");
    EXPECT_EQ(why_not_fused(attention_of(64), 128, cuda_target(80)),
              "sm_80 has no kernels for a fused backward");
}

TEST(LayerRoles, ExplainWhichAndWhy) {
    const BlockPattern full = BlockPattern::full(16384, 128);
    const std::string fused = explain_roles(attention_of(64), full, cuda_target(90));
    EXPECT_EQ(fused.find("backward: delta, then all gradients; delta and then all gradients are "
                         "predicted to take "),
              0U);
    EXPECT_NE(fused.find(" us (B=2, 100 % of the blocks)\n"), std::string::npos) << fused;
    EXPECT_EQ(explain_roles(attention_of(64), full, cuda_target(80)),
              "backward: dQ, then dK and dV; sm_80 has no kernels for a fused backward\n");
}

TEST(LayerRoles, LoweringRefusesWhatHasNoKernel) {
    const Attention attention = attention_of(64);
    const BlockPattern pattern = BlockPattern::full(attention.length, 64);
    expect_error<UserError>(
        [&] { lower(attention, pattern, KernelRole::kGradients, cuda_target(90)); },
        "not bf16, D=64, Dv=64 and blocks of 64: take the split backward");
}

TEST(LayerRoles, LaunchesHaveTheirPlace) {
    for (const LayerRoles& roles : {kSplitBackwardRoles, kFusedBackwardRoles}) {
        for (std::size_t i = 0; i < roles.size(); ++i) {
            EXPECT_EQ(launch_of(roles[i]), i);
        }
    }
}

}  // namespace
}  // namespace spion
