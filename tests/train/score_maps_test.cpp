// Each head's pooled map, and the layer's, against the formulas in float64.
#include "train/score_maps.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "tests/support/random_case.h"
#include "tests/support/reference_discovery.h"
#include "tests/support/seed.h"
#include "tests/train/test_cache.h"

namespace spion {
namespace {

// Q and K [B, L, 2, H, D] with the LSE of their scores and each head's mean probabilities, in float64
// from the formulas.
struct RandomScores {
    RandomScores(std::mt19937_64& random, const Attention& attention, int batch)
        : heads(attention.heads),
          length(static_cast<int>(attention.length)),
          head_dim(attention.head_dim),
          qk(static_cast<std::size_t>(batch) * length * 2 * heads * head_dim),
          lse(static_cast<std::size_t>(batch) * heads * length),
          maps(heads, std::vector<double>(static_cast<std::size_t>(length) * length)) {
        std::normal_distribution<float> normal(0.0F, 2.0F);
        std::generate(qk.begin(), qk.end(), [&] { return normal(random); });
        for (int b = 0; b < batch; ++b) lengths.push_back(pick(random, 1, length));
        for (int b = 0; b < batch; ++b) {
            for (int h = 0; h < heads; ++h) {
                for (int i = 0; i < length; ++i) add_row(attention, b, h, i);
            }
        }
    }
    double value(int b, int i, int which, int h, int d) const {
        return qk.at(
            (((static_cast<std::size_t>(b) * length + i) * 2 + which) * heads + h) * head_dim + d);
    }
    void add_row(const Attention& attention, int b, int h, int i) {
        const bool causal = attention.mask == ElementMask::kCausal;
        const int keys = std::min(lengths[b], causal ? i + 1 : length);
        std::vector<double> exponents;
        for (int j = 0; j < keys; ++j) {
            double score = 0;
            for (int d = 0; d < head_dim; ++d) score += value(b, i, 0, h, d) * value(b, j, 1, h, d);
            exponents.push_back(std::exp(attention.scale * score));
        }
        const double sum = std::accumulate(exponents.begin(), exponents.end(), 0.0);
        lse.at((b * heads + h) * length + i) = static_cast<float>(std::log(sum));
        for (int j = 0; j < keys; ++j) {
            maps[h].at(i * length + j) += exponents[j] / sum / static_cast<double>(lengths.size());
        }
    }
    int heads, length, head_dim;
    std::vector<float> qk;                  // [B, L, 2, H, D]
    std::vector<int> lengths;               // [B] valid keys
    std::vector<float> lse;                 // [B, H, L]
    std::vector<std::vector<double>> maps;  // [H] of [L, L]
};

// On the host, whose memory is ours.
SpionAttentionArguments arguments_of(RandomScores& scores) {
    const long long row = 2LL * scores.heads * scores.head_dim;
    SpionAttentionArguments arguments{};
    arguments.q = {.data = scores.qk.data(),
                   .batch_stride = row * scores.length,
                   .head_stride = scores.head_dim,
                   .row_stride = row};
    arguments.k = arguments.q;
    arguments.k.data = scores.qk.data() + row / 2;
    arguments.lse = scores.lse.data();
    arguments.lengths = scores.lengths.data();
    arguments.batch = static_cast<int>(scores.lengths.size());
    return arguments;
}

void expect_near(const std::vector<double>& found, const std::vector<double>& expected) {
    ASSERT_EQ(found.size(), expected.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
        EXPECT_NEAR(found[i], expected[i], 2e-5 * std::max(expected[i], 1e-2)) << "block " << i;
    }
}

TEST(HeadMaps, AreThePooledProbabilitiesOfEachHead) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    const auto device = open_device(DeviceChoice::kCpu);
    KernelCache cache(test_cache_root());
    for (const ElementMask mask : {ElementMask::kNone, ElementMask::kCausal}) {
        const Attention attention{.heads = 3,
                                  .head_dim = 16,
                                  .length = 90,
                                  .dtype = DType::kFp32,
                                  .scale = default_scale(16),
                                  .key_padding = true,
                                  .mask = mask,
                                  .patterns = 3};
        const DiscoverySettings discovery{.block = 16, .filter = 9};
        HeadMaps heads(attention, discovery, *device, cache);
        ScoreMaps layer(attention, discovery, false, *device, cache);
        for (const int batch : {1, 3}) {  // the buffers grow
            RandomScores scores(random, attention, batch);
            const auto maps = heads.take(arguments_of(scores));
            ASSERT_EQ(maps.size(), 3U);
            std::vector<double> mean(maps[0].size());
            for (int h = 0; h < 3; ++h) {
                expect_near(maps[h], reference_pooled(scores.maps[h], scores.length, 16, 9));
                for (std::size_t i = 0; i < mean.size(); ++i) mean[i] += maps[h][i] / 3;
            }
            expect_near(layer.take(arguments_of(scores)).pooled, mean);
        }
    }
}

}  // namespace
}  // namespace spion
