// The host back end against the float64 reference.
#include <gtest/gtest.h>

#include <random>

#include "ir/error.h"
#include "tests/support/seed.h"
#include "tests/tools/pick_attention.h"
#include "tools/oracle/attention_case.h"

namespace spion {
namespace {

class HostAttention : public ::testing::TestWithParam<int> {  // head dim
  protected:
    void expect_passes(const AttentionCase& problem) {
        const CaseReport report = check_case(problem, *device_, cache_);
        EXPECT_TRUE(report.passed()) << to_text(problem) << "\n"
                                     << problem.pattern.front().to_bits() << report.failures();
    }

    std::unique_ptr<Device> device_ = open_device(DeviceChoice::kCpu);
    KernelCache cache_{std::nullopt};
};

// Each block edge with one softmax kind, the kinds in turn; which one begins is up to the seed.
TEST_P(HostAttention, EqualsTheReferenceOnRandomProblems) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    int kind = pick(random, 0, 1);
    for (const int block : {16, 32, 64, 128}) {
        kind = 1 - kind;
        expect_passes(pick_attention(random, DType::kFp32, GetParam(), block,
                                     kind == 0 ? SoftmaxKind::kPrunedZero : SoftmaxKind::kMasked));
    }
}

// Tiles of several block rows, the last of them short or beyond the end.
TEST_P(HostAttention, PackedTilesEqualTheReference) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    for (const int block : {16, 32}) {
        for (const int rows : {2, 64 / block}) {
            AttentionCase problem = pick_attention(
                random, DType::kFp32, GetParam(), block,
                pick(random, 0, 1) == 0 ? SoftmaxKind::kPrunedZero : SoftmaxKind::kMasked);
            problem.packed_rows = rows;
            expect_passes(problem);
        }
    }
}

// Fewer heads of K and V, with and without an element mask.
TEST_P(HostAttention, GroupedHeadsEqualTheReference) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    for (int mask = 0; mask < 3; ++mask) {
        const AttentionCase problem = pick_attention(
            random, DType::kFp32, GetParam(), 16 << pick(random, 0, 3),
            pick(random, 0, 1) == 0 ? SoftmaxKind::kPrunedZero : SoftmaxKind::kMasked);
        expect_passes(
            with_grouped_heads(random, with_mask(random, problem, static_cast<ElementMask>(mask))));
    }
}

// More keys than queries, or fewer, with every mask.
TEST_P(HostAttention, OtherNumbersOfKeysEqualTheReference) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    for (int mask = 0; mask < 3; ++mask) {
        AttentionCase problem = with_other_keys(
            random, pick_attention(
                        random, DType::kFp32, GetParam(), 16 << pick(random, 0, 3),
                        pick(random, 0, 1) == 0 ? SoftmaxKind::kPrunedZero : SoftmaxKind::kMasked));
        problem = with_mask(random, problem, static_cast<ElementMask>(mask));
        expect_passes(pick(random, 0, 1) == 0 ? with_grouped_heads(random, problem) : problem);
    }
}

// A pattern a head of K and V, and one a query head, whose dK and dV have a walk a member.
TEST_P(HostAttention, PatternsOfHeadsEqualTheReference) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    for (int round = 0; round < 4; ++round) {
        AttentionCase problem = pick_attention(
            random, DType::kFp32, GetParam(), 16 << pick(random, 0, 3),
            pick(random, 0, 1) == 0 ? SoftmaxKind::kPrunedZero : SoftmaxKind::kMasked);
        problem = pick(random, 0, 1) == 0 ? with_other_keys(random, problem) : problem;
        problem = with_mask(random, problem, static_cast<ElementMask>(pick(random, 0, 2)));
        problem = round < 3 ? with_grouped_heads(random, problem) : problem;
        if (problem.pattern.block() <= 32 && pick(random, 0, 1) == 0) {
            problem.packed_rows = 2;
        }
        expect_passes(with_patterns(random, problem, round % 2 == 0));
    }
}

// Dropout, caps, slopes and sinks in any combination, with masks, groups and packed tiles.
TEST_P(HostAttention, ChangedScoresEqualTheReference) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    for (int round = 0; round < 3; ++round) {
        AttentionCase problem = pick_attention(
            random, DType::kFp32, GetParam(), 16 << pick(random, 0, 3),
            pick(random, 0, 1) == 0 ? SoftmaxKind::kPrunedZero : SoftmaxKind::kMasked);
        if (pick(random, 0, 1) == 0) {
            problem = with_mask(random, problem, static_cast<ElementMask>(pick(random, 1, 2)));
        }
        if (pick(random, 0, 2) == 0) {
            problem = with_grouped_heads(random, problem);
        } else if (problem.pattern.block() <= 32 && pick(random, 0, 1) == 0) {
            problem.packed_rows = 2;
        }
        if (pick(random, 0, 1) == 0) {
            problem = with_patterns(random, problem, pick(random, 0, 1) == 0);
        }
        expect_passes(with_changed_scores(random, problem));
    }
}

using HostAttentionWidths = HostAttention;

// Multiples of 8, and another dimension of V.
TEST_P(HostAttentionWidths, EqualTheReference) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    for (const int value_dim : {0, 8 * pick(random, 2, 32)}) {
        const AttentionCase problem = pick_attention(
            random, DType::kFp32, GetParam(), 16 << pick(random, 0, 3),
            pick(random, 0, 1) == 0 ? SoftmaxKind::kPrunedZero : SoftmaxKind::kMasked);
        expect_passes(with_value_dim(problem, value_dim));
    }
}

// Sequences end to end, under every rule of a mask, with groups, packed tiles and changed scores.
TEST_P(HostAttentionWidths, SequencesEqualTheReference) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    for (int round = 0; round < 3; ++round) {
        AttentionCase problem = pick_attention(
            random, DType::kFp32, GetParam(), 16 << pick(random, 0, 3),
            pick(random, 0, 1) == 0 ? SoftmaxKind::kPrunedZero : SoftmaxKind::kMasked);
        if (pick(random, 0, 2) == 0) {
            problem = with_grouped_heads(random, problem);
        } else if (problem.pattern.block() <= 32 && pick(random, 0, 1) == 0) {
            problem.packed_rows = 2;
        }
        if (pick(random, 0, 1) == 0) {
            problem = with_changed_scores(random, problem);
        }
        expect_passes(with_sequences(random, problem));
    }
}

INSTANTIATE_TEST_SUITE_P(HeadDim, HostAttentionWidths, ::testing::Values(24, 40, 72, 200, 248),
                         ::testing::PrintToStringParamName());

INSTANTIATE_TEST_SUITE_P(HeadDim, HostAttention, ::testing::Values(16, 32, 48, 64, 128, 176, 256),
                         ::testing::PrintToStringParamName());

using HostAttentionCorners = HostAttention;

TEST_P(HostAttentionCorners, EqualTheReference) {
    for (AttentionCase problem : corner_cases(DType::kFp32)) {
        problem.attention.head_dim = GetParam();
        problem.attention.scale = default_scale(GetParam());
        expect_passes(problem);
    }
}

INSTANTIATE_TEST_SUITE_P(HeadDim, HostAttentionCorners, ::testing::Values(32),
                         ::testing::PrintToStringParamName());

TEST_P(HostAttentionCorners, OtherDtypesAreRefused) {
    for (const DType dtype : {DType::kTf32, DType::kBf16, DType::kFp16}) {
        try {
            expect_passes(plain_attention(dtype, BlockPattern::full(32, 16)));
            FAIL() << to_string(dtype) << " was accepted";
        } catch (const UserError& error) {
            EXPECT_EQ(error.what(), "the host computes in fp32 only, not in " +
                                        std::string(to_string(dtype)) +
                                        "; give --dtype fp32, or --device cuda");
        }
    }
}

}  // namespace
}  // namespace spion
