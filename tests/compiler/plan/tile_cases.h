// Cases for the tests of tile shapes: random ones, and those that were measured.
#pragma once

#include <array>
#include <random>

#include "compiler/plan/tile_candidates.h"
#include "tests/support/known_gpus.h"
#include "tests/support/random_case.h"
#include "tools/oracle/random_pattern.h"

namespace spion {

constexpr std::array kEveryRole = {KernelRole::kForward, KernelRole::kQueryGradient,
                                   KernelRole::kKeyValueGradient};
constexpr std::array kEveryDType = {DType::kFp32, DType::kTf32, DType::kBf16, DType::kFp16};

inline Target host_with(int threads, int vector_floats = 8) {
    return {.back_end = BackEnd::kHost,
            .arch = "znver4",
            .features = "",
            .sm_count = threads,
            .vector_floats = vector_floats};
}

inline Target pick_gpu(std::mt19937_64& random) {
    const std::vector<int>& known = test::known_capabilities();
    return cuda_target(
        known[static_cast<std::size_t>(pick(random, 0, static_cast<int>(known.size()) - 1))]);
}

inline Target pick_target(std::mt19937_64& random) {
    return pick(random, 0, 6) == 0 ? host_with(pick(random, 1, 64), 4 << pick(random, 0, 2))
                                   : pick_gpu(random);
}

inline KernelRole pick_role(std::mt19937_64& random) {
    return kEveryRole[static_cast<std::size_t>(pick(random, 0, 2))];
}

inline Attention pick_attention(std::mt19937_64& random, std::int64_t length) {
    return {.heads = pick(random, 1, 16),
            .head_dim = 16 * pick(random, 1, 16),
            .length = length,
            .dtype = kEveryDType[static_cast<std::size_t>(pick(random, 0, 3))],
            .scale = 1};
}

// Median milliseconds on an H200, bf16 (docs/results.md); backward is dQ, then dK and dV.
struct MeasuredCase {
    const char* name;
    std::int64_t batch;
    int heads;
    std::int64_t length;
    int head_dim;
    int block;
    double density;
    double forward_ms, backward_ms;
    bool sm_90a = false;  // with its own kernels, else those of sm_90

    Target target() const {
        const Target h200 = cuda_target(90);
        return sm_90a ? h200 : without_features(h200);
    }

    Attention attention() const {
        return {.heads = heads,
                .head_dim = head_dim,
                .length = length,
                .dtype = DType::kBf16,
                .scale = default_scale(head_dim)};
    }
    BlockPattern pattern() const { return random_pattern(length, block, density, 1); }
};

constexpr MeasuredCase kMeasured[] = {
    {"retrieval", 32, 2, 4096, 32, 64, 0.03, 0.0356, 0.0999},
    {"listops", 256, 2, 2048, 32, 64, 0.05, 0.1126, 0.2908},
    {"image", 128, 2, 1024, 32, 32, 0.05, 0.0303, 0.0751},
    {"dense", 32, 2, 4096, 32, 128, 1, 0.610, 1.615},
    {"16k-128-b128", 2, 16, 16384, 128, 128, 0.10, 1.52, 5.38},
    {"16k-64-b128", 2, 16, 16384, 64, 128, 0.10, 0.807, 2.72},
    {"16k-128-b64", 2, 16, 16384, 128, 64, 0.10, 1.56, 5.36},
    {"16k-64-b64", 2, 16, 16384, 64, 64, 0.10, 0.808, 2.73},
    {"16k-64-b32", 2, 16, 16384, 64, 32, 0.05, 0.519, 1.82},
    {"4k-32-b32", 32, 2, 4096, 32, 32, 0.03, 0.0404, 0.108},
    {"1k-64-b64", 64, 4, 1024, 64, 64, 0.10, 0.0504, 0.157},
    {"2k-128-b64", 16, 8, 2048, 128, 64, 0.10, 0.130, 0.465},
    {"1k-16-b16", 128, 2, 1024, 16, 16, 0.05, 0.0256, 0.0638},
    {"image", 128, 2, 1024, 32, 32, 0.05, 0.0234, 0.0698, true},
    {"16k-64-b32", 2, 16, 16384, 64, 32, 0.05, 0.385, 1.362, true},
    {"retrieval", 32, 2, 4096, 32, 64, 0.03, 0.0263, 0.0747, true},
    {"listops", 256, 2, 2048, 32, 64, 0.05, 0.0784, 0.2277, true},
    {"dense-4k-32", 32, 2, 4096, 32, 64, 1, 0.4727, 1.1831, true},
    {"16k-64-b64", 2, 16, 16384, 64, 64, 0.10, 0.4979, 1.5897, true},
    {"16k-64-b128", 2, 16, 16384, 64, 128, 0.10, 0.4940, 1.5783, true},
    {"16k-128-b64", 2, 16, 16384, 128, 64, 0.10, 0.9311, 2.7872, true},
    {"16k-128-b128", 2, 16, 16384, 128, 128, 0.10, 0.7895, 2.7887, true},
    {"dense-8k-64", 2, 16, 8192, 64, 128, 1, 1.2056, 3.6002, true},
    {"dense-8k-128", 2, 16, 8192, 128, 128, 1, 1.8500, 6.1556, true},
    {"2k-64-b64", 16, 8, 2048, 64, 64, 0.10, 0.0507, 0.1567, true},
};

}  // namespace spion
