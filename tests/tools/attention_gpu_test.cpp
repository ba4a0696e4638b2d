// The CUDA back end against the float64 reference, with the kernels that the plan takes.
#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <tuple>

#include "tests/support/expect_error.h"
#include "tests/support/seed.h"
#include "tests/tools/gpu_case.h"
#include "tests/tools/pick_attention.h"

namespace spion {
namespace {

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
    const bool dv_then_dk = head_dim > (storage_bytes(dtype) == 4 ? 128 : 160);
    for (const int block : {16, 32, 64}) {
        for (const int rows : {2, 128 / block}) {
            AttentionCase problem =
                pick_attention(random, dtype, head_dim, block, pick_softmax(random));
            problem = with_mask(random, problem, static_cast<ElementMask>(pick(random, 0, 2)));
            problem.packed_rows = rows;
            if (dv_then_dk) {
                expect_error<UserError>([&] { check_case(problem, *device_, cache_); },
                                        "do not fit");
            } else {
                expect_passes(problem);
            }
        }
    }
}

TEST_P(GpuAttention, ElementMasksEqualTheReference) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    const auto [dtype, head_dim] = GetParam();
    for (const ElementMask mask : kMasks) {
        const SoftmaxKind softmax = pick_softmax(random);
        const AttentionCase problem =
            pick_attention(random, dtype, head_dim, pick_block(random), softmax);
        expect_passes(with_mask(random, problem, mask));
    }
}

TEST_P(GpuAttention, GroupedHeadsEqualTheReference) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    const auto [dtype, head_dim] = GetParam();
    const AttentionCase problem =
        pick_attention(random, dtype, head_dim, pick_block(random), pick_softmax(random));
    expect_passes(with_grouped_heads(
        random, with_mask(random, problem, static_cast<ElementMask>(pick(random, 0, 2)))));
}

INSTANTIATE_TEST_SUITE_P(All, GpuAttention,
                         ::testing::Combine(kDTypes, ::testing::Values(16, 32, 48, 64, 80, 96, 128,
                                                                       160, 192, 256)),
                         [](const auto& tested) {
                             return std::string(to_string(std::get<0>(tested.param))) + "_D" +
                                    std::to_string(std::get<1>(tested.param));
                         });

using GpuAttentionLengths = GpuAttention;

// More keys than queries, or fewer; patterns of heads. Query heads that share a head of K and V have
// no patterns of their own where dV and dK are computed one after the other.
TEST_P(GpuAttentionLengths, OtherKeysAndPatternsOfHeadsEqualTheReference) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    const auto [dtype, head_dim] = GetParam();
    const bool dv_then_dk = head_dim > (storage_bytes(dtype) == 4 ? 128 : 160);
    for (int round = 0; round < 4; ++round) {
        AttentionCase problem = with_other_keys(
            random,
            pick_attention(random, dtype, head_dim, pick_block(random), pick_softmax(random)));
        problem = with_mask(random, problem, static_cast<ElementMask>(pick(random, 0, 2)));
        problem = round < 3 ? with_grouped_heads(random, problem) : problem;
        if (round == 0) {
            expect_passes(problem);
        } else if (round == 1 && dv_then_dk) {
            problem = with_patterns(random, problem, true);
            expect_error<UserError>([&] { check_case(problem, *device_, cache_); },
                                    "give one pattern a head of K and V, or one a layer");
        } else {
            expect_passes(with_patterns(random, problem, round == 1));
        }
    }
}

// Dropout, caps, slopes and sinks, with masks, groups and packed tiles.
TEST_P(GpuAttention, ChangedScoresEqualTheReference) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    const auto [dtype, head_dim] = GetParam();
    AttentionCase problem =
        pick_attention(random, dtype, head_dim, pick_block(random), pick_softmax(random));
    problem = with_mask(random, problem, static_cast<ElementMask>(pick(random, 0, 2)));
    if (pick(random, 0, 2) == 0) {
        problem = with_grouped_heads(random, problem);
    } else if (problem.pattern.block() <= 32 && head_dim <= 128 && pick(random, 0, 1) == 0) {
        problem.packed_rows = 2;
    }
    expect_passes(with_changed_scores(random, problem));
}

// Biases whose distances are clipped in most elements, or in none, in every family and packed; with all
// that may stand beside them.
TEST_P(GpuAttention, RelativeBiasEqualsTheReference) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    const auto [dtype, head_dim] = GetParam();
    int round = 0;
    for (const int block : {16, 32, 64, 128}) {
        AttentionCase problem =
            pick_attention(random, dtype, head_dim, block, pick_softmax(random));
        problem = with_mask(random, problem, static_cast<ElementMask>(pick(random, 0, 2)));
        if (round % 2 == 1) problem = with_changed_scores(random, problem);
        if (block <= 32 && head_dim <= 128 && pick(random, 0, 1) == 0) {
            problem.packed_rows = 64 / block;
        } else if (pick(random, 0, 1) == 0) {
            problem = with_grouped_heads(random, problem);
        }
        const int reaches[] = {2, 33, 150, 1000};
        problem.attention.relative_bias = reaches[(round++ + pick(random, 0, 3)) % 4];
        const bool enabled = !problem.values || problem.values->dropout_enabled;
        problem.values = random_score_values(problem.attention, random());
        problem.values->dropout_enabled = enabled;
        expect_passes(problem);
    }
}

// Users' expressions, in every block and so every family, packed too; the first is no number where the
// mask drops its scores.
TEST_P(GpuAttention, ExpressionsOfScoresEqualTheReference) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    const auto [dtype, head_dim] = GetParam();
    for (const int block : {16, 32, 64, 128}) {
        AttentionCase problem =
            pick_attention(random, dtype, head_dim, block, pick_softmax(random));
        const bool causal = pick(random, 0, 1) == 0;
        problem = with_mask(random, problem, causal ? ElementMask::kCausal : ElementMask::kSpans);
        problem.attention.score = causal ? "6*tanh(score/6)-(0.2+0.1*head)*log(1+q-k)"
                                         : canonical_score(test::random_score(random, 4, false));
        expect_passes(problem);
        if (block <= 32 && head_dim <= 128) {
            problem.packed_rows = 2;
            expect_passes(problem);
        }
    }
}

// With Q = K = 0 a row's probabilities are all alike, and where V has a 1 for one key each, O shows
// which elements are dropped.
TEST_P(GpuAttention, DropsWhatTheContractSays) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    const auto [dtype, head_dim] = GetParam();
    const int block = pick_block(random);
    AttentionCase problem = plain_attention(dtype, BlockPattern::full(200, block));
    problem.attention.head_dim = head_dim;
    problem.attention.dropout = 0.25F;
    problem.values = random_score_values(problem.attention, random());
    const std::int64_t length = problem.pattern.length(), rows = std::int64_t{2 * 2} * length;
    AttentionInputs inputs;
    inputs.q.assign(rows * head_dim, 0.0F);
    inputs.k = inputs.q;
    const std::int64_t first = pick(random, 0, static_cast<int>(length) - 1);
    inputs.v = inputs.q;  // keys first, first + 1, .. have a 1 in columns 0, 1, ..
    for (std::int64_t row = 0; row < rows; ++row) {
        const std::int64_t column = row % length - first;
        if (column >= 0 && column < head_dim) inputs.v[row * head_dim + column] = 1.0F;
    }
    problem.inputs = std::make_shared<const AttentionInputs>(inputs);
    const CaseReport report = check_case(problem, *device_, cache_);
    EXPECT_TRUE(report.passed()) << to_text(problem) << report.failures();
    const int dropped = dropped_of_256(problem.attention);
    for (std::int64_t row = 0; row < rows; ++row) {
        for (int d = 0; d < head_dim && first + d < length; ++d) {
            const int byte = dropout_byte(*problem.values, row / length, row % length, first + d);
            ASSERT_EQ(report.outputs.o[row * head_dim + d] == 0.0F, byte < dropped)
                << "row " << row << ", key " << first + d;
        }
    }
}

// A family each: warps and wgmma, mma.sync, fp32's units; dV and then dK.
INSTANTIATE_TEST_SUITE_P(All, GpuAttentionLengths,
                         ::testing::Combine(::testing::Values(DType::kBf16, DType::kFp32),
                                            ::testing::Values(32, 64, 128, 192)),
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
