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
    SoftmaxKind kind = pick_softmax(random);
    expect_equal_tiers(pick_attention(random, DType::kFp32, 32, 16 << pick(random, 0, 1), kind),
                       *device, cache);
    kind = next_softmax(kind);
    expect_equal_tiers(pick_attention(random, DType::kFp32, 16, 64 << pick(random, 0, 1), kind),
                       *device, cache);
    AttentionCase packed = pick_attention(random, DType::kFp32, 32, 16, kind);
    packed.packed_rows = 4;
    expect_equal_tiers(packed, *device, cache);
    const std::vector<AttentionCase> corners = corner_cases(DType::kFp32);
    for (const std::size_t corner : {0, 2, 4}) {  // all rows alike, none, padded
        expect_equal_tiers(corners[corner], *device, cache);
    }
}

}  // namespace
}  // namespace spion
