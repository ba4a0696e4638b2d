// The host's attention kernels against float64, on random problems.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "runtime/host/host_device.h"
#include "runtime/host/host_target.h"
#include "tests/kernels/host_case.h"

namespace spion::testing {
namespace {

constexpr double kTolerance = 1e-5;

// Shapes as lowering picks them and others that the bodies must bear.
TileShape random_shape(std::mt19937& random, int block) {
    const auto pick = [&](std::vector<int> values) { return values[random() % values.size()]; };
    const int stationary = block == 128 ? pick({16, 32, 64}) : pick({16, block < 64 ? block : 64});
    const int granule = block == 16 ? 16 : pick({16, block / 2, block});
    const int streamed = granule * pick({1, 128 / granule});
    return {stationary, streamed, granule};
}

HostCase random_case(std::mt19937& random, int block, int head_dim) {
    const auto up_to = [&](int limit) { return 1 + static_cast<int>(random() % limit); };
    HostCase c;
    c.seed = random();
    c.batch = up_to(3);
    c.attention = {.heads = up_to(3),
                   .head_dim = head_dim,
                   .length = 1 + static_cast<int>(random() % (block < 64 ? 180 : 330)),
                   .dtype = DType::kFp32,
                   .scale = default_scale(head_dim),
                   .softmax = random() % 2 == 0 ? SoftmaxKind::kMasked : SoftmaxKind::kPrunedZero,
                   .key_padding = random() % 2 == 0,
                   .dropout = 0.0F};
    const int blocks = static_cast<int>((c.attention.length + block - 1) / block);
    const double density = random() % 4 == 0 ? 1.0 : 0.4;  // at 0.4 some rows are empty
    c.pattern = BlockPattern(c.attention.length, block, random_bits(random, blocks, density));
    c.shape = random_shape(random, block);
    c.layout = static_cast<Layout>(random() % 3);
    c.spread = random() % 4 == 0 ? 4.0F : 1.0F;
    for (int b = 0; c.attention.key_padding && b < c.batch; ++b) {
        // The first sample has no keys at all in some cases: fully masked rows.
        c.lengths.push_back(b == 0 && random() % 3 == 0
                                ? 0
                                : static_cast<int>(random() % (c.attention.length + 1)));
    }
    return c;
}

void expect_equal_to_reference(Device& device, const Target& target, const HostCase& c) {
    SCOPED_TRACE(c.describe());
    Tensors<float> tensors = random_inputs(c);
    const Tensors<double> want = reference(c, tensors);
    run_kernels(device, target, c, tensors);
    EXPECT_LE(relative_error(tensors.o, want.o), kTolerance) << "O";
    EXPECT_LE(relative_error(tensors.lse, want.lse), kTolerance) << "LSE";
    EXPECT_LE(relative_error(tensors.delta, want.delta), kTolerance) << "delta";
    EXPECT_LE(relative_error(tensors.d_q, want.d_q), kTolerance) << "dQ";
    EXPECT_LE(relative_error(tensors.d_k, want.d_k), kTolerance) << "dK";
    EXPECT_LE(relative_error(tensors.d_v, want.d_v), kTolerance) << "dV";
}

struct Parameters {
    int block, head_dim;
};
class HostAttention : public ::testing::TestWithParam<Parameters> {};

TEST_P(HostAttention, EqualsReference) {
    const std::uint32_t seed = std::random_device()();
    std::mt19937 random(seed);
    const auto device = make_host_device(2);
    for (int round = 0; round < 3; ++round) {
        SCOPED_TRACE(fmt::format("seed {} round {}", seed, round));
        const HostCase c = random_case(random, GetParam().block, GetParam().head_dim);
        const HostVectors vectors[] = {HostVectors::kBest, HostVectors::kAvx2, HostVectors::kSse};
        expect_equal_to_reference(*device, host_target(vectors[round], 2), c);
    }
}

std::vector<Parameters> all_parameters() {
    std::vector<Parameters> all;
    for (int block : {16, 32, 64, 128}) {
        for (int head_dim : {16, 32, 64, 128}) {
            all.push_back({block, head_dim});
        }
    }
    return all;
}

INSTANTIATE_TEST_SUITE_P(Shapes, HostAttention, ::testing::ValuesIn(all_parameters()),
                         [](const auto& test) {
                             return fmt::format("b{}D{}", test.param.block, test.param.head_dim);
                         });

}  // namespace
}  // namespace spion::testing
