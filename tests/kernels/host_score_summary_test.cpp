// The host's score summary against pooling the whole score map in float64.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "codegen/llvm/emit_llvm.h"
#include "compiler/discovery/discover.h"
#include "compiler/discovery/score_summary.h"
#include "runtime/host/host_device.h"
#include "tests/kernels/host_case.h"

namespace spion::testing {
namespace {

// Mean over batch and heads of the softmax of all scores: [L, L]. Padded keys get 0.
std::vector<double> mean_scores(const HostCase& c, const Tensors<float>& in) {
    const std::int64_t length = c.attention.length, width = c.attention.head_dim;
    std::vector<double> means(static_cast<std::size_t>(length * length), 0.0);
    const std::int64_t maps = std::int64_t{c.batch} * c.attention.heads;
    for (std::int64_t row = 0; row < maps * length; ++row) {
        const std::int64_t first = row / length * length;
        const auto sample = static_cast<std::size_t>(first / length / c.attention.heads);
        const std::int64_t keys = c.lengths.empty() ? length : c.lengths[sample];
        std::vector<double> p(static_cast<std::size_t>(keys));
        double total = 0;
        for (std::int64_t j = 0; j < keys; ++j) {
            double score = 0;
            for (std::int64_t d = 0; d < width; ++d) {
                score += double{in.q[static_cast<std::size_t>(row * width + d)]} *
                         double{in.k[static_cast<std::size_t>((first + j) * width + d)]};
            }
            p[static_cast<std::size_t>(j)] = std::exp(double{c.attention.scale} * score);
            total += p[static_cast<std::size_t>(j)];
        }
        for (std::int64_t j = 0; j < keys; ++j) {
            means[static_cast<std::size_t>((row - first) * length + j)] +=
                p[static_cast<std::size_t>(j)] / total / static_cast<double>(maps);
        }
    }
    return means;
}

struct Parameters {
    int block, filter, head_dim;
};
class HostScoreSummary : public ::testing::TestWithParam<Parameters> {};

HostCase random_case(const Parameters& parameters) {
    HostCase c;
    c.seed = std::random_device()();
    std::mt19937 random(c.seed);
    c.batch = 2;
    c.attention = {.heads = 2,
                   .head_dim = parameters.head_dim,
                   .length = 1 + static_cast<int>(random() % 300),
                   .dtype = DType::kFp32,
                   .scale = default_scale(parameters.head_dim),
                   .softmax = SoftmaxKind::kPrunedZero,
                   .key_padding = random() % 2 == 0,
                   .dropout = 0.0F};
    const std::int64_t length = c.attention.length;
    if (c.attention.key_padding) {
        c.lengths = {static_cast<int>(random() % (length + 1)), 0};
    }
    c.pattern = BlockPattern::full(length, parameters.block);
    const int rows = std::min(parameters.block, 64);
    c.shape = {rows, rows, rows};
    return c;
}

TEST_P(HostScoreSummary, EqualsPoolingTheScoreMap) {
    const auto [block, filter, head_dim] = GetParam();
    const HostCase c = random_case(GetParam());
    const std::int64_t length = c.attention.length;
    SCOPED_TRACE(c.describe() + fmt::format(" filter={}", filter));

    Tensors<float> tensors = random_inputs(c);
    const std::vector<double> means = mean_scores(c, tensors);
    const Reference forward = reference(c, tensors);
    tensors.lse.assign(forward.lse.begin(), forward.lse.end());
    const auto view = [&](std::vector<float>& tensor) {
        return SpionTensor{.data = tensor.data(),
                           .batch_stride = c.attention.heads * length * head_dim,
                           .head_stride = length * head_dim,
                           .row_stride = head_dim};
    };
    const ScoreSummaryProgram program{
        .attention = c.attention, .block = block, .filter = filter, .tile = std::min(block, 64)};
    const std::int64_t tiles = (length + program.tile - 1) / program.tile;
    const float poison = std::numeric_limits<float>::quiet_NaN();
    std::vector<float> summary(static_cast<std::size_t>(tiles * tiles * 7), poison);
    std::vector<float> scores(static_cast<std::size_t>(length * length), poison);
    SpionAttentionArguments args{};
    args.q = view(tensors.q);
    args.k = view(tensors.k);
    args.lse = tensors.lse.data();
    args.lengths = c.lengths.empty() ? nullptr : c.lengths.data();
    args.batch = c.batch;
    args.summary = summary.data();
    args.scores = scores.data();
    const auto device = make_host_device(2);
    const KernelSource source = emit_host(program, device->target());
    run_source(*device, device->target(), source, tiles * tiles, args);

    EXPECT_LE(relative_error(scores, means), 1e-5);
    const std::vector<double> pooled = combine_summary(summary, length, block, program.tile);
    const std::vector<double> want = pool_scores(means, length,
                                                 {.block = block,
                                                  .filter = filter,
                                                  .quantile = 0.9,
                                                  .density = 0.1,
                                                  .variant = Variant::kCF});
    ASSERT_EQ(pooled.size(), want.size());
    EXPECT_LE(relative_error({pooled.begin(), pooled.end()}, want), 1e-5);

    const std::vector<float> with_scores = summary;
    args.scores = nullptr;
    run_source(*device, device->target(), source, tiles * tiles, args);
    EXPECT_EQ(with_scores, summary);
}

std::string shape_name(const ::testing::TestParamInfo<Parameters>& test) {
    return fmt::format("b{}F{}D{}", test.param.block, test.param.filter, test.param.head_dim);
}

const Parameters kShapes[] = {{16, 31, 16},  {32, 1, 64}, {64, 31, 32}, {64, 6, 64},
                              {128, 31, 32}, {32, 6, 48}, {64, 31, 256}};
INSTANTIATE_TEST_SUITE_P(Shapes, HostScoreSummary, ::testing::ValuesIn(kShapes), shape_name);

}  // namespace
}  // namespace spion::testing
