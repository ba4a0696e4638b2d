// Head dimensions that are padded, other ones of V, and sequences end to end: the CUDA back end against
// the float64 reference.
#include <gtest/gtest.h>

#include <random>
#include <tuple>

#include "tests/support/seed.h"
#include "tests/tools/gpu_case.h"
#include "tests/tools/pick_attention.h"

namespace spion {
namespace {

class GpuAttentionWidths : public GpuCase<std::tuple<DType, int>> {  // dtype, head dim
  protected:
    AttentionCase pick_case(std::mt19937_64& random, int block) {
        const auto [dtype, head_dim] = GetParam();
        return pick_attention(random, dtype, head_dim, block, pick_softmax(random));
    }
};

// Every block once; V as wide, and of any other width.
TEST_P(GpuAttentionWidths, EqualTheReference) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    const int dtype_bytes = storage_bytes(std::get<0>(GetParam()));
    for (const int block : {16, 32, 64, 128}) {
        AttentionCase problem = pick_case(random, block);
        problem = with_mask(random, problem, static_cast<ElementMask>(pick(random, 0, 2)));
        // A tile of fp32 has room for 256 columns on the largest GPUs alone.
        const int value_dim = block == 16 ? 0 : 8 * pick(random, 2, dtype_bytes == 4 ? 16 : 32);
        expect_passes(with_value_dim(problem, value_dim));
    }
}

TEST_P(GpuAttentionWidths, SequencesEqualTheReference) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    for (const int block : {16, 32, 64, 128}) {
        AttentionCase problem = pick_case(random, block);
        if (pick(random, 0, 2) == 0) {
            problem = with_grouped_heads(random, problem);
        }
        if (pick(random, 0, 2) == 0) {
            problem = with_changed_scores(random, problem);
        }
        expect_passes(with_sequences(random, problem));
    }
}

// Sequences with patterns of their own, and with other keys, in all families.
TEST_P(GpuAttentionWidths, SequencesOfTheirOwnEqualTheReference) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    for (const int block : {16, 32, 64, 128}) {
        AttentionCase problem = pick_case(random, block);
        if (pick(random, 0, 2) == 0) {
            problem = with_grouped_heads(random, problem);
            problem.attention.patterns = pick(random, 0, 1) == 0 ? problem.attention.kv_heads : 1;
        }
        if (pick(random, 0, 2) == 0) {
            problem = with_changed_scores(random, problem);
        }
        const bool other_keys = pick(random, 0, 1) == 0;
        problem = other_keys ? with_key_sequences(random, with_other_keys(random, problem))
                             : with_sequences(random, problem);
        expect_passes(with_sequence_patterns(random, problem));
    }
}

INSTANTIATE_TEST_SUITE_P(All, GpuAttentionWidths,
                         ::testing::Combine(::testing::Values(DType::kFp32, DType::kTf32,
                                                              DType::kBf16, DType::kFp16),
                                            ::testing::Values(24, 40, 64, 80, 120, 200)),
                         [](const auto& tested) {
                             return std::string(to_string(std::get<0>(tested.param))) + "_D" +
                                    std::to_string(std::get<1>(tested.param));
                         });

}  // namespace
}  // namespace spion
