// The host's attention kernels against float64, on random problems.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "runtime/host/host_device.h"
#include "runtime/host/host_target.h"
#include "tests/kernels/host_case.h"
#include "tests/support/random_mask.h"
#include "tests/support/softmax_kinds.h"

namespace spion::testing {
namespace {

constexpr double kTolerance = 1e-5;

// Shapes as lowering picks them and others that the bodies must bear.
TileShape random_shape(std::mt19937& random, int block) {
    const auto pick = [&](std::vector<int> values) { return values[random() % values.size()]; };
    const int stationary = block == 128 ? pick({16, 32, 64}) : pick({16, block < 64 ? block : 64});
    const int gather_rows = block == 16 ? 16 : pick({16, block / 2, block});
    const int streamed = gather_rows * pick({1, 128 / gather_rows});
    return {stationary, streamed, gather_rows};
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
                   .softmax = static_cast<SoftmaxKind>(random() % kSoftmaxNames.size()),
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
    const Reference want = reference(c, tensors);
    run_kernels(device, target, c, tensors);
    EXPECT_LE(relative_error(tensors.o, want.o), kTolerance) << "O";
    EXPECT_LE(relative_error(tensors.lse, want.lse), kTolerance) << "LSE";
    EXPECT_LE(relative_error(tensors.delta, want.delta), kTolerance) << "delta";
    EXPECT_LE(relative_error(tensors.d_q, want.d_q, want.d_q_terms), kTolerance) << "dQ";
    EXPECT_LE(relative_error(tensors.d_k, want.d_k, want.d_k_terms), kTolerance) << "dK";
    EXPECT_LE(relative_error(tensors.d_v, want.d_v), kTolerance) << "dV";
}

struct Parameters {
    int block, head_dim;
    HostVectors vectors;
};
class HostAttention : public ::testing::TestWithParam<Parameters> {};

TEST_P(HostAttention, EqualsReference) {
    const std::uint32_t seed = std::random_device()();
    std::mt19937 random(seed);
    SCOPED_TRACE(fmt::format("seed {}", seed));
    const auto device = make_host_device(2);
    expect_equal_to_reference(*device, host_target(GetParam().vectors, 2),
                              random_case(random, GetParam().block, GetParam().head_dim));
}

// Every kind of element mask, on patterns, paddings and tiles of all kinds.
class HostAttentionMasks : public ::testing::TestWithParam<Parameters> {};

TEST_P(HostAttentionMasks, EqualReference) {
    const std::uint32_t seed = std::random_device()();
    std::mt19937 random(seed);
    SCOPED_TRACE(fmt::format("seed {}", seed));
    const auto device = make_host_device(2);
    for (const ElementMask mask : {ElementMask::kCausal, ElementMask::kSpans}) {
        HostCase c = random_case(random, GetParam().block, GetParam().head_dim);
        c.attention.mask = mask;
        // Sizes are the launch's: the second and third round compile nothing.
        for (int round = 0; round < (mask == ElementMask::kSpans ? 3 : 1); ++round) {
            if (mask == ElementMask::kSpans) {
                c.rules = test::random_rules([&](int n) { return static_cast<int>(random() % n); },
                                             c.batch, c.attention.length);
            }
            expect_equal_to_reference(*device, host_target(GetParam().vectors, 2), c);
        }
    }
}

std::string shape_name(const ::testing::TestParamInfo<Parameters>& test) {
    const char* names[] = {"best", "avx2", "sse"};
    return fmt::format("b{}D{}{}", test.param.block, test.param.head_dim,
                       names[static_cast<int>(test.param.vectors)]);
}

const Parameters kShapes[] = {
    {16, 16, HostVectors::kBest},   {16, 64, HostVectors::kBest},   {32, 32, HostVectors::kBest},
    {32, 128, HostVectors::kBest},  {64, 32, HostVectors::kBest},   {64, 64, HostVectors::kBest},
    {128, 64, HostVectors::kBest},  {128, 128, HostVectors::kBest}, {16, 128, HostVectors::kAvx2},
    {64, 32, HostVectors::kAvx2},   {32, 32, HostVectors::kSse},    {32, 48, HostVectors::kBest},
    {64, 80, HostVectors::kSse},    {16, 96, HostVectors::kAvx2},   {32, 160, HostVectors::kBest},
    {128, 192, HostVectors::kAvx2}, {64, 256, HostVectors::kBest}};
const Parameters kMaskedShapes[] = {{16, 16, HostVectors::kBest},  {16, 64, HostVectors::kAvx2},
                                    {32, 32, HostVectors::kBest},  {64, 64, HostVectors::kBest},
                                    {64, 80, HostVectors::kSse},   {128, 64, HostVectors::kBest},
                                    {128, 32, HostVectors::kAvx2}, {32, 256, HostVectors::kBest}};
INSTANTIATE_TEST_SUITE_P(Shapes, HostAttentionMasks, ::testing::ValuesIn(kMaskedShapes),
                         shape_name);
INSTANTIATE_TEST_SUITE_P(Shapes, HostAttention, ::testing::ValuesIn(kShapes), shape_name);

// A case of fixed shape: L = 100 in blocks of 32, so that the last block is ragged.
HostCase small_case(SoftmaxKind softmax) {
    HostCase c;
    c.batch = 2;
    c.attention = {.heads = 2,
                   .head_dim = 32,
                   .length = 100,
                   .dtype = DType::kFp32,
                   .scale = 0.2F,
                   .softmax = softmax,
                   .key_padding = false,
                   .dropout = 0.0F};
    c.pattern = BlockPattern(100, 32, {1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 1, 0, 1, 0, 0, 1});
    c.shape = {32, 64, 32};
    c.seed = std::random_device()();
    return c;
}

bool all_zero(const std::vector<float>& values) {
    return std::all_of(values.begin(), values.end(), [](float value) { return value == 0.0F; });
}

TEST(HostAttentionRows, EmptyPatternUnderPrunedZero) {
    HostCase c = small_case(SoftmaxKind::kPrunedZero);
    c.pattern = BlockPattern::empty(100, 32);
    Tensors<float> tensors = random_inputs(c);
    const auto device = make_host_device(1);
    run_kernels(*device, device->target(), c, tensors);
    for (const auto* zero : {&tensors.o, &tensors.d_q, &tensors.d_k, &tensors.d_v}) {
        EXPECT_TRUE(all_zero(*zero));
    }
    for (float lse : tensors.lse) {
        EXPECT_NEAR(lse, std::log(100.0), 1e-6);
    }
}

TEST(HostAttentionRows, EmptyPatternUnderMasked) {
    HostCase c = small_case(SoftmaxKind::kMasked);
    c.pattern = BlockPattern::empty(100, 32);
    Tensors<float> tensors = random_inputs(c);
    const auto device = make_host_device(1);
    run_kernels(*device, device->target(), c, tensors);
    for (const auto* zero : {&tensors.o, &tensors.d_q, &tensors.d_k, &tensors.d_v}) {
        EXPECT_TRUE(all_zero(*zero));
    }
    for (float lse : tensors.lse) {
        EXPECT_EQ(lse, -std::numeric_limits<float>::infinity());
    }
}

TEST(HostAttentionRows, PaddedKeysGetNoGradientEvenWhereTheyHoldNaN) {
    HostCase c = small_case(SoftmaxKind::kPrunedZero);
    c.attention.key_padding = true;
    c.lengths = {37, 0};
    Tensors<float> tensors = random_inputs(c);
    const Reference want = reference(c, tensors);
    const float poison = std::numeric_limits<float>::quiet_NaN();
    for (int b = 0; b < 2; ++b) {
        for (int h = 0; h < 2; ++h) {
            const std::size_t row = static_cast<std::size_t>((b * 2 + h) * 100);
            const std::size_t first = (row + static_cast<std::size_t>(c.lengths[b])) * 32;
            for (auto* tensor : {&tensors.k, &tensors.v}) {
                std::fill(tensor->begin() + static_cast<std::ptrdiff_t>(first),
                          tensor->begin() + static_cast<std::ptrdiff_t>((row + 100) * 32), poison);
            }
        }
    }
    const auto device = make_host_device(1);
    run_kernels(*device, device->target(), c, tensors);
    EXPECT_LE(relative_error(tensors.o, want.o), kTolerance);
    EXPECT_LE(relative_error(tensors.lse, want.lse), kTolerance);
    EXPECT_LE(relative_error(tensors.d_q, want.d_q, want.d_q_terms), kTolerance);
    EXPECT_LE(relative_error(tensors.d_k, want.d_k, want.d_k_terms), kTolerance);
    EXPECT_LE(relative_error(tensors.d_v, want.d_v), kTolerance);
}

TEST(HostAttentionRows, NaNInQueriesReachesTheirRowsAlone) {
    const HostCase c = small_case(SoftmaxKind::kMasked);
    Tensors<float> tensors = random_inputs(c);
    tensors.q[5 * 32 + 7] = std::numeric_limits<float>::quiet_NaN();
    const auto device = make_host_device(1);
    run_kernels(*device, device->target(), c, tensors);
    EXPECT_TRUE(std::isnan(tensors.lse[5]));
    EXPECT_TRUE(std::isnan(tensors.o[5 * 32]));
    EXPECT_FALSE(std::isnan(tensors.lse[4]));
    EXPECT_FALSE(std::isnan(tensors.o[6 * 32]));
}

TEST(HostAttentionRows, LargeScoresNeitherOverflowNorVanish) {
    for (const SoftmaxKind softmax : test::softmax_kinds()) {
        HostCase c = small_case(softmax);
        c.spread = 12.0F;  // scores of hundreds: one element takes all
        Tensors<float> tensors = random_inputs(c);
        const Reference want = reference(c, tensors);
        const auto device = make_host_device(1);
        run_kernels(*device, device->target(), c, tensors);
        SCOPED_TRACE(c.describe());
        EXPECT_LE(relative_error(tensors.lse, want.lse), 1e-6);
        // A score of 300 has an error of 300 * 6e-8 of rounding alone, and P that relative error.
        EXPECT_LE(relative_error(tensors.o, want.o), 2e-4);
    }
}

TEST(HostAttentionRepeats, BitwiseAcrossRunsAndThreads) {
    const std::uint32_t seed = std::random_device()();
    std::mt19937 random(seed);
    SCOPED_TRACE(fmt::format("seed {}", seed));
    const HostCase c = random_case(random, 32, 32);
    Tensors<float> first = random_inputs(c);
    run_kernels(*make_host_device(1), host_target(HostVectors::kBest, 1), c, first);
    for (int threads : {1, 2, 3}) {
        Tensors<float> again = random_inputs(c);
        run_kernels(*make_host_device(threads), host_target(HostVectors::kBest, threads), c, again);
        const auto equal = [](const std::vector<float>& a, const std::vector<float>& b) {
            return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
        };
        EXPECT_TRUE(equal(first.o, again.o)) << threads;
        EXPECT_TRUE(equal(first.lse, again.lse)) << threads;
        EXPECT_TRUE(equal(first.delta, again.delta)) << threads;
        EXPECT_TRUE(equal(first.d_q, again.d_q)) << threads;
        EXPECT_TRUE(equal(first.d_k, again.d_k)) << threads;
        EXPECT_TRUE(equal(first.d_v, again.d_v)) << threads;
    }
}

}  // namespace
}  // namespace spion::testing
