// Tier 1 gives tier 0's bits on the host.
#include "tests/support/seed.h"
#include "tests/tools/compare_tiers.h"
#include "tests/tools/pick_attention.h"

namespace spion {
namespace {

TEST(TiersOnTheHost, GiveTheSameBits) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    const auto device = open_device(DeviceChoice::kCpu);
    KernelCache cache(std::nullopt);
    int kind = pick(random, 0, 1);
    for (const int block : {16, 32, 64, 128}) {
        kind = 1 - kind;
        expect_equal_tiers(
            pick_attention(random, DType::kFp32, 16 << pick(random, 0, 3), block,
                           kind == 0 ? SoftmaxKind::kPrunedZero : SoftmaxKind::kMasked),
            *device, cache);
    }
    for (const AttentionCase& problem : corner_cases(DType::kFp32)) {  // all rows alike, or empty
        expect_equal_tiers(problem, *device, cache);
    }
}

}  // namespace
}  // namespace spion
