// Tier 1 gives tier 0's bits on a GPU.
#include "tests/runtime/gpu_fixture.h"
#include "tests/support/seed.h"
#include "tests/tools/compare_tiers.h"
#include "tests/tools/pick_attention.h"

namespace spion {
namespace {

class TiersOnAGpu : public GpuTest, public ::testing::WithParamInterface<DType> {};

TEST_P(TiersOnAGpu, GiveTheSameBits) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    KernelCache cache(std::nullopt);
    int kind = pick(random, 0, 1);
    for (const int head_dim : {16, 32, 64, 128}) {
        for (const int block : {16, 32, 64, 128}) {
            kind = 1 - kind;
            expect_equal_tiers(
                pick_attention(random, GetParam(), head_dim, block,
                               kind == 0 ? SoftmaxKind::kPrunedZero : SoftmaxKind::kMasked),
                *device_, cache);
        }
    }
    for (const int block : {16, 32}) {
        AttentionCase packed =
            pick_attention(random, GetParam(), 64, block, SoftmaxKind::kPrunedZero);
        packed.packed_rows = 64 / block;
        expect_equal_tiers(packed, *device_, cache);
    }
    for (const AttentionCase& problem : corner_cases(GetParam())) {
        expect_equal_tiers(problem, *device_, cache);
    }
}

INSTANTIATE_TEST_SUITE_P(All, TiersOnAGpu,
                         ::testing::Values(DType::kFp32, DType::kTf32, DType::kBf16, DType::kFp16),
                         [](const auto& tested) { return std::string(to_string(tested.param)); });

}  // namespace
}  // namespace spion
