// The CUDA back end against the float64 reference.
#include <gtest/gtest.h>

#include <random>
#include <tuple>

#include "tests/runtime/gpu_fixture.h"
#include "tests/support/seed.h"
#include "tests/tools/pick_attention.h"
#include "tools/attention_case.h"

namespace spion {
namespace {

template <typename Parameter>
class GpuCase : public GpuTest, public ::testing::WithParamInterface<Parameter> {
  protected:
    void expect_passes(const AttentionCase& problem) {
        const CaseReport report = check_case(problem, *device_, cache_);
        EXPECT_TRUE(report.passed()) << to_text(problem) << "\n"
                                     << problem.pattern.to_bits() << report.failures();
    }

    KernelCache cache_{std::nullopt};
};

const auto kDTypes = ::testing::Values(DType::kFp32, DType::kTf32, DType::kBf16, DType::kFp16);

using GpuAttention = GpuCase<std::tuple<DType, int>>;  // dtype, head dim

// Each block edge with one softmax kind, the kinds in turn; which one begins is up to the seed.
TEST_P(GpuAttention, EqualsTheReferenceOnRandomProblems) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    const auto [dtype, head_dim] = GetParam();
    int kind = pick(random, 0, 1);
    for (const int block : {16, 32, 64, 128}) {
        kind = 1 - kind;
        expect_passes(pick_attention(random, dtype, head_dim, block,
                                     kind == 0 ? SoftmaxKind::kPrunedZero : SoftmaxKind::kMasked));
    }
}

// Tiles of several block rows, the last of them short or beyond the end.
TEST_P(GpuAttention, PackedTilesEqualTheReference) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    const auto [dtype, head_dim] = GetParam();
    for (const int block : {16, 32}) {
        for (const int rows : {2, 64 / block}) {
            AttentionCase problem = pick_attention(
                random, dtype, head_dim, block,
                pick(random, 0, 1) == 0 ? SoftmaxKind::kPrunedZero : SoftmaxKind::kMasked);
            problem.packed_rows = rows;
            expect_passes(problem);
        }
    }
}

INSTANTIATE_TEST_SUITE_P(All, GpuAttention,
                         ::testing::Combine(kDTypes, ::testing::Values(16, 32, 64, 128)),
                         [](const auto& tested) {
                             return std::string(to_string(std::get<0>(tested.param))) + "_D" +
                                    std::to_string(std::get<1>(tested.param));
                         });

using GpuAttentionCorners = GpuCase<DType>;

TEST_P(GpuAttentionCorners, EqualTheReference) {
    for (const AttentionCase& problem : corner_cases(GetParam())) {
        expect_passes(problem);
    }
}

INSTANTIATE_TEST_SUITE_P(All, GpuAttentionCorners, kDTypes,
                         [](const auto& tested) { return std::string(to_string(tested.param)); });

}  // namespace
}  // namespace spion
