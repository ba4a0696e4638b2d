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

LayerPlan plan_of(const Attention& attention, int block, PatternDensity density,
                  const Target& target, Tables tables = Tables::kPassed) {
    PlanOptions options{.tables = tables, .density = density};
    return plan_layer(attention, BlockPattern::full(attention.length, block), target, options);
}

BackwardPrediction predict_backward(const Attention& attention, int block, const Target& target) {
    return plan_of(attention, block, PatternDensity::kFull, target).backward;
}

LayerRoles choose_roles(const Attention& attention, int block, PatternDensity density,
                        const Target& target, Tables tables = Tables::kPassed) {
    return plan_of(attention, block, density, target, tables).roles;
}

std::string why_not_fused(const Attention& attention, int block, const Target& target) {
    return predict_backward(attention, block, target).why_not_fused;
}

std::string explain_roles(const Attention& attention, const BlockPattern& pattern,
                          const Target& target) {
    return explain_roles(plan_layer(attention, pattern, target));
}

TEST(LayerRoles, SumTogetherWhereThatIsPredictedToBeFaster) {
    const Target hopper = cuda_target(90);
    for (const int head_dim : {64, 128}) {
        const BackwardPrediction predicted = predict_backward(attention_of(head_dim), 128, hopper);
        ASSERT_TRUE(predicted.fused.has_value());
        EXPECT_LT(*predicted.fused, predicted.split);
        EXPECT_EQ(choose_roles(attention_of(head_dim), 128, PatternDensity::kFull, hopper),
                  kFusedBackwardRoles);
    }
}

TEST(LayerRoles, SumTogetherAtD128OnFullPatternsOnly) {
    const Target hopper = cuda_target(90);
    EXPECT_EQ(choose_roles(attention_of(64), 128, PatternDensity::kSparse, hopper),
              kFusedBackwardRoles);
    EXPECT_EQ(choose_roles(attention_of(128), 128, PatternDensity::kSparse, hopper),
              kSplitBackwardRoles);
    const BlockPattern full = BlockPattern::full(1000, 128);
    std::vector<std::uint8_t> bits(64, 1);
    bits[9] = 0;
    EXPECT_EQ(density_of(full), PatternDensity::kFull);
    EXPECT_EQ(density_of(BlockPattern(1000, 128, bits)), PatternDensity::kSparse);
}

TEST(LayerRoles, SumApartWhereThereIsNoKernel) {
    const Target hopper = cuda_target(90);
    EXPECT_EQ(choose_roles(attention_of(64), 64, PatternDensity::kFull, hopper),
              kSplitBackwardRoles);
    EXPECT_EQ(choose_roles(attention_of(32), 128, PatternDensity::kFull, hopper),
              kSplitBackwardRoles);
    EXPECT_EQ(choose_roles(attention_of(64, DType::kTf32), 128, PatternDensity::kFull, hopper),
              kSplitBackwardRoles);
    EXPECT_EQ(choose_roles(attention_of(64), 128, PatternDensity::kFull, cuda_target(80)),
              kSplitBackwardRoles);
    EXPECT_EQ(choose_roles(attention_of(64), 128, PatternDensity::kFull, hopper, Tables::kBaked),
              kSplitBackwardRoles);
    EXPECT_FALSE(predict_backward(attention_of(64), 64, hopper).fused.has_value());
    EXPECT_EQ(why_not_fused(attention_of(64), 128, hopper), "");
    EXPECT_EQ(why_not_fused(attention_of(64), 64, hopper),
              "kernels of the fused backward take bf16 or fp16, D and Dv of at most 128, one of "
              "them above 32, and blocks of 128, not bf16, D=64, Dv=64 and blocks of 64");
    EXPECT_EQ(why_not_fused(attention_of(64), 128, cuda_target(80)),
              "sm_80 has no kernels for a fused backward");
}

TEST(LayerRoles, ExplainWhichAndWhy) {
    const BlockPattern full = BlockPattern::full(16384, 128);
    EXPECT_NE(explain_roles(attention_of(128), full, cuda_target(90))
                  .find("; at D=128 fused on full patterns only"),
              std::string::npos);
    EXPECT_NE(explain_roles(attention_of(64), full, cuda_target(90))
                  .find("backward: delta, then all gradients; delta and then all gradients are "
                        "predicted to take "),
              std::string::npos);
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
