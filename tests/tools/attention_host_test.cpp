// The host back end against the float64 reference.
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <random>
#include <utility>

#include "ir/error.h"
#include "tests/support/seed.h"
#include "tests/tools/pick_attention.h"
#include "tools/oracle/attention_case.h"

namespace spion {
namespace {

class HostAttention : public ::testing::TestWithParam<int> {  // head dim
  protected:
    AttentionCase pick_case(int block, SoftmaxKind softmax) {
        return pick_attention(random_, DType::kFp32, GetParam(), block, softmax);
    }
    AttentionCase pick_case(int block) { return pick_case(block, pick_softmax(random_)); }
    AttentionCase pick_case() { return pick_case(pick_block(random_)); }
    bool coin() { return pick(random_, 0, 1) == 1; }
    // Query heads that share a head of K and V, packed tiles, or neither.
    AttentionCase with_groups_or_packed(AttentionCase problem) {
        if (pick(random_, 0, 2) == 0) {
            return with_grouped_heads(random_, std::move(problem));
        }
        if (problem.pattern.block() <= 32 && coin()) {
            problem.packed_rows = 2;
        }
        return problem;
    }
    void expect_passes(const AttentionCase& problem) {
        const CaseReport report = check_case(problem, *device_, cache_);
        EXPECT_TRUE(report.passed()) << to_text(problem) << "\n"
                                     << problem.pattern.front().to_bits() << report.failures();
    }

    std::unique_ptr<Device> device_ = open_device(DeviceChoice::kCpu);
    KernelCache cache_{std::nullopt};
    const std::uint64_t seed_ = test::fresh_seed();
    const ::testing::ScopedTrace trace_{__FILE__, __LINE__, test::seed_note(seed_)};
    std::mt19937_64 random_{seed_};
};

// Each block edge with one softmax kind, the kinds in turn; which one begins is up to the seed.
TEST_P(HostAttention, EqualsTheReferenceOnRandomProblems) {
    SoftmaxKind softmax = pick_softmax(random_);
    for (const int block : {16, 32, 64, 128}) {
        softmax = next_softmax(softmax);
        expect_passes(pick_case(block, softmax));
    }
}

// Tiles of several block rows, the last of them short or beyond the end.
TEST_P(HostAttention, PackedTilesEqualTheReference) {
    for (const int block : {16, 32}) {
        for (const int rows : {2, 64 / block}) {
            AttentionCase problem = pick_case(block);
            problem.packed_rows = rows;
            expect_passes(problem);
        }
    }
}

// Fewer heads of K and V, with and without an element mask.
TEST_P(HostAttention, GroupedHeadsEqualTheReference) {
    for (int mask = 0; mask < 3; ++mask) {
        const AttentionCase problem = pick_case();
        expect_passes(with_grouped_heads(
            random_, with_mask(random_, problem, static_cast<ElementMask>(mask))));
    }
}

// More keys than queries, or fewer, with every mask.
TEST_P(HostAttention, OtherNumbersOfKeysEqualTheReference) {
    for (int mask = 0; mask < 3; ++mask) {
        AttentionCase problem = with_other_keys(random_, pick_case());
        problem = with_mask(random_, problem, static_cast<ElementMask>(mask));
        expect_passes(coin() ? with_grouped_heads(random_, problem) : problem);
    }
}

// A pattern a head of K and V, and one a query head, whose dK and dV have a walk a member.
TEST_P(HostAttention, PatternsOfHeadsEqualTheReference) {
    for (int round = 0; round < 4; ++round) {
        AttentionCase problem = pick_case();
        problem = coin() ? with_other_keys(random_, problem) : problem;
        problem = with_mask(random_, problem, static_cast<ElementMask>(pick(random_, 0, 2)));
        problem = round < 3 ? with_grouped_heads(random_, problem) : problem;
        if (problem.pattern.block() <= 32 && coin()) {
            problem.packed_rows = 2;
        }
        expect_passes(with_patterns(random_, problem, round % 2 == 0));
    }
}

// Dropout, caps, slopes and sinks in any combination, with masks, groups and packed tiles.
TEST_P(HostAttention, ChangedScoresEqualTheReference) {
    for (int round = 0; round < 3; ++round) {
        AttentionCase problem = pick_case();
        if (coin()) {
            problem = with_mask(random_, problem, static_cast<ElementMask>(pick(random_, 1, 2)));
        }
        problem = with_groups_or_packed(problem);
        if (coin()) {
            problem = with_patterns(random_, problem, coin());
        }
        expect_passes(with_changed_scores(random_, problem));
    }
}

using HostAttentionWidths = HostAttention;

// Multiples of 8, and another dimension of V.
TEST_P(HostAttentionWidths, EqualTheReference) {
    for (const int value_dim : {0, 8 * pick(random_, 2, 32)}) {
        const AttentionCase problem = pick_case();
        expect_passes(with_value_dim(problem, value_dim));
    }
}

// Sequences end to end, under every rule of a mask, with groups, packed tiles and changed scores.
TEST_P(HostAttentionWidths, SequencesEqualTheReference) {
    for (int round = 0; round < 3; ++round) {
        AttentionCase problem = pick_case();
        problem = with_groups_or_packed(problem);
        if (coin()) {
            problem = with_changed_scores(random_, problem);
        }
        expect_passes(with_sequences(random_, problem));
    }
}

// The same with patterns of each sequence's own, for all heads or each.
TEST_P(HostAttentionWidths, SequencesWithTheirOwnPatternsEqualTheReference) {
    for (int round = 0; round < 3; ++round) {
        AttentionCase problem = with_groups_or_packed(pick_case());
        if (coin()) {
            const Attention& attention = problem.attention;
            problem.attention.patterns = coin() ? attention.heads : attention.key_value_heads();
        }
        expect_passes(with_sequence_patterns(random_, problem));
    }
}

// Keys that are sequences of their own, of other lengths than those of the queries.
TEST_P(HostAttentionWidths, SequencesOfOtherKeysEqualTheReference) {
    for (int round = 0; round < 4; ++round) {
        AttentionCase problem = with_groups_or_packed(pick_case());
        if (coin()) {
            problem = with_other_keys(random_, problem);
        }
        if (coin()) {
            problem = with_changed_scores(random_, problem);
        }
        problem = with_key_sequences(random_, problem);
        expect_passes(coin() ? with_sequence_patterns(random_, problem) : problem);
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
