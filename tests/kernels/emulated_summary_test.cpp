// The CUDA score_summary kernel, run on the host, against its definition in double.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "codegen/emit.h"
#include "compiler/discovery/discover.h"
#include "compiler/discovery/score_summary.h"
#include "tests/kernels/cuda_emulation.h"
#include "tests/kernels/emulated_cases.h"
#include "tests/kernels/emulated_kernels.h"
#include "tests/support/seed.h"

namespace spion {
namespace {

class EmulatedScoreSummary : public testing::TestWithParam<EmulatedSummary> {};

// Values that every element type stores exactly: multiples of 1/16 in [-2, 2].
std::vector<std::uint8_t> random_tensor(const Attention& a, int batch, std::mt19937& random,
                                        std::vector<double>& values) {
    std::uniform_int_distribution<int> sixteenths(-32, 32);
    const int bytes = storage_bytes(a.dtype);
    values.resize(static_cast<std::size_t>(batch * a.heads * a.length * a.head_dim));
    std::vector<std::uint8_t> stored(values.size() * static_cast<std::size_t>(bytes));
    for (std::size_t i = 0; i < values.size(); ++i) {
        const float value = static_cast<float>(sixteenths(random)) / 16.0F;
        values[i] = value;
        const std::uint16_t half =
            a.dtype == DType::kBf16 ? emulation::to_bf16(value) : emulation::to_fp16(value);
        const void* source = bytes == 4 ? static_cast<const void*>(&value) : &half;
        std::memcpy(&stored[i * static_cast<std::size_t>(bytes)], source,
                    static_cast<std::size_t>(bytes));
    }
    return stored;
}

// Mean probabilities [L, L] and LSE [B, H, L]. One row of one head has no LSE: it counts as 0.
struct Means {
    std::vector<double> mean;
    std::vector<float> lse;
};

Means means_of(const Attention& a, const std::vector<double>& q, const std::vector<double>& k,
               const std::vector<int>& lengths) {
    const int batch = static_cast<int>(lengths.size());
    const std::int64_t L = a.length;
    Means result{.mean = std::vector<double>(static_cast<std::size_t>(L * L), 0.0), .lse = {}};
    for (int pair = 0; pair < batch * a.heads; ++pair) {
        const std::int64_t valid =
            a.key_padding ? lengths[static_cast<std::size_t>(pair / a.heads)] : L;
        for (std::int64_t i = 0; i < L; ++i) {
            const std::int64_t keys =
                a.mask == ElementMask::kCausal ? std::min(valid, i + 1) : valid;
            std::vector<double> p(static_cast<std::size_t>(keys));
            double sum = 0;
            for (std::int64_t j = 0; j < keys; ++j) {
                double dot = 0;
                for (int d = 0; d < a.head_dim; ++d) {
                    dot += q[static_cast<std::size_t>((pair * L + i) * a.head_dim + d)] *
                           k[static_cast<std::size_t>((pair * L + j) * a.head_dim + d)];
                }
                sum += p[static_cast<std::size_t>(j)] = std::exp(dot * a.scale);
            }
            const bool none = pair == 0 && i == 5;
            result.lse.push_back(none ? -std::numeric_limits<float>::infinity()
                                      : static_cast<float>(std::log(sum)));
            for (std::int64_t j = 0; j < keys && !none; ++j) {
                result.mean[static_cast<std::size_t>(i * L + j)] +=
                    p[static_cast<std::size_t>(j)] / sum / (batch * a.heads);
            }
        }
    }
    return result;
}

TEST_P(EmulatedScoreSummary, PoolsTheMeanProbabilities) {
    const std::uint64_t drawn = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(drawn));
    const auto seed = static_cast<unsigned>(drawn);
    std::mt19937 random(seed);
    const ScoreSummaryProgram program = program_of(GetParam());
    const Attention& a = program.attention;
    const int batch = 2;
    const std::int64_t L = a.length;
    std::vector<double> q, k;
    auto q_bytes = random_tensor(a, batch, random, q), k_bytes = random_tensor(a, batch, random, k);
    const std::vector<int> lengths = {static_cast<int>(L), static_cast<int>(L / 3)};

    auto [mean, lse] = means_of(a, q, k, lengths);

    const auto side = (L + program.tile - 1) / program.tile;
    std::vector<float> summary(static_cast<std::size_t>(side * side * 7), std::nanf(""));
    std::vector<float> scores(static_cast<std::size_t>(L * L), std::nanf(""));
    SpionAttentionArguments args{};
    const SpionTensor view{.data = nullptr,
                           .batch_stride = a.heads * L * a.head_dim,
                           .head_stride = L * a.head_dim,
                           .row_stride = a.head_dim};
    args.q = args.k = view;
    args.q.data = q_bytes.data();
    args.k.data = k_bytes.data();
    args.lse = lse.data();
    args.lengths = a.key_padding ? lengths.data() : nullptr;
    args.batch = batch;
    args.summary = summary.data();
    args.scores = scores.data();
    emulation::forget_reads();
    emulation::allow_reads(q_bytes.data(), q_bytes.size());
    emulation::allow_reads(k_bytes.data(), k_bytes.size());
    const EmittedGeometry shape = geometry(program, emulated_target());
    const EmulatedKernel kernel = find_emulated(GetParam().name, "score_summary");
    emulation::launch(side * side, shape.threads, shape.shared_bytes, seed, [&] { kernel(args); });

    for (std::size_t i = 0; i < mean.size(); ++i) {
        ASSERT_NEAR(scores[i], mean[i], 2e-3 * mean[i] + 1e-7) << "element " << i;
    }
    const std::vector<double> pooled = combine_summary(summary, L, program.block, program.tile);
    DiscoverySettings settings;
    settings.block = program.block;
    settings.filter = program.filter;
    const std::vector<double> expected = pool_scores(mean, L, settings);
    ASSERT_EQ(pooled.size(), expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
        EXPECT_NEAR(pooled[i], expected[i], 1e-3 * expected[i]) << "block " << i;
    }
    // Without scores the sums are the same bits.
    const std::vector<float> first = summary;
    args.scores = nullptr;
    emulation::launch(side * side, shape.threads, shape.shared_bytes, seed + 1,
                      [&] { kernel(args); });
    EXPECT_EQ(summary, first);
}

std::string summary_name(const testing::TestParamInfo<EmulatedSummary>& info) {
    return info.param.name;
}

INSTANTIATE_TEST_SUITE_P(Cases, EmulatedScoreSummary, testing::ValuesIn(emulated_summaries()),
                         summary_name);

}  // namespace
}  // namespace spion
