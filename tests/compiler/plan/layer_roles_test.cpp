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

LayerPlan plan_of(const Attention& attention, int block, Extent extent, const Target& target,
                  Tables tables = Tables::kPassed) {
    PlanOptions options{.tables = tables, .extent = extent};
    return plan_layer(attention, BlockPattern::full(attention.length, block), target, options);
}

BackwardPrediction predict_backward(const Attention& attention, int block, const Target& target) {
    return plan_of(attention, block, Extent::kFull, target).backward;
}

LayerRoles choose_roles(const Attention& attention, int block, Extent extent, const Target& target,
                        Tables tables = Tables::kPassed) {
    return plan_of(attention, block, extent, target, tables).roles;
}

std::string why_not_together(const Attention& attention, int block, const Target& target) {
    return predict_backward(attention, block, target).why_not_together;
}

std::string explain_roles(const Attention& attention, const BlockPattern& pattern,
                          const Target& target) {
    return explain_roles(plan_layer(attention, pattern, target));
}

TEST(LayerRoles, SumTogetherWhereThatIsPredictedToBeFaster) {
    const Target hopper = cuda_target(90);
    for (const int head_dim : {64, 128}) {
        const BackwardPrediction predicted = predict_backward(attention_of(head_dim), 128, hopper);
        ASSERT_TRUE(predicted.together.has_value());
        EXPECT_LT(*predicted.together, predicted.apart);
        EXPECT_EQ(choose_roles(attention_of(head_dim), 128, Extent::kFull, hopper),
                  kGradientsTogether);
    }
}

TEST(LayerRoles, SumTogetherAtD128OnFullPatternsOnly) {
    const Target hopper = cuda_target(90);
    EXPECT_EQ(choose_roles(attention_of(64), 128, Extent::kSparse, hopper), kGradientsTogether);
    EXPECT_EQ(choose_roles(attention_of(128), 128, Extent::kSparse, hopper), kGradientsApart);
    const BlockPattern full = BlockPattern::full(1000, 128);
    std::vector<std::uint8_t> bits(64, 1);
    bits[9] = 0;
    EXPECT_EQ(extent_of(full), Extent::kFull);
    EXPECT_EQ(extent_of(BlockPattern(1000, 128, bits)), Extent::kSparse);
}

TEST(LayerRoles, SumApartWhereThereIsNoKernel) {
    const Target hopper = cuda_target(90);
    EXPECT_EQ(choose_roles(attention_of(64), 64, Extent::kFull, hopper), kGradientsApart);
    EXPECT_EQ(choose_roles(attention_of(32), 128, Extent::kFull, hopper), kGradientsApart);
    EXPECT_EQ(choose_roles(attention_of(64, DType::kTf32), 128, Extent::kFull, hopper),
              kGradientsApart);
    EXPECT_EQ(choose_roles(attention_of(64), 128, Extent::kFull, cuda_target(80)), kGradientsApart);
    EXPECT_EQ(choose_roles(attention_of(64), 128, Extent::kFull, hopper, Tables::kBaked),
              kGradientsApart);
    EXPECT_FALSE(predict_backward(attention_of(64), 64, hopper).together.has_value());
    EXPECT_EQ(why_not_together(attention_of(64), 128, hopper), "");
    EXPECT_EQ(why_not_together(attention_of(64), 64, hopper),
              "kernels that sum all gradients together take bf16 or fp16, D=64 or 128 and blocks "
              "of 128, not bf16, D=64 and blocks of 64");
    EXPECT_EQ(why_not_together(attention_of(64), 128, cuda_target(80)),
              "sm_80 has no kernels that sum all gradients together");
}

TEST(LayerRoles, ExplainWhichAndWhy) {
    const BlockPattern full = BlockPattern::full(16384, 128);
    EXPECT_NE(explain_roles(attention_of(128), full, cuda_target(90))
                  .find("; at D=128 together on full patterns only"),
              std::string::npos);
    EXPECT_NE(explain_roles(attention_of(64), full, cuda_target(90))
                  .find("backward: delta, then all gradients; delta and then all gradients are "
                        "predicted to take "),
              std::string::npos);
    EXPECT_EQ(
        explain_roles(attention_of(64), full, cuda_target(80)),
        "backward: dQ, then dK and dV; sm_80 has no kernels that sum all gradients together\n");
}

TEST(LayerRoles, LoweringRefusesWhatHasNoKernel) {
    const Attention attention = attention_of(64);
    const BlockPattern pattern = BlockPattern::full(attention.length, 64);
    expect_error<UserError>(
        [&] { lower(attention, pattern, KernelRole::kGradients, cuda_target(90)); },
        "not bf16, D=64 and blocks of 64: sum dQ apart from dK and dV");
}

TEST(LayerRoles, LaunchesHaveTheirPlace) {
    for (const LayerRoles& roles : {kGradientsApart, kGradientsTogether}) {
        for (std::size_t i = 0; i < roles.size(); ++i) {
            EXPECT_EQ(launch_of(roles[i]), i);
        }
    }
}

}  // namespace
}  // namespace spion
