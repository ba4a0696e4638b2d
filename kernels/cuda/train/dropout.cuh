// The dropout of an octet. Needs the constant kDropout of the generated source.
#pragma once

#include "kernels/cuda/train/contract.cuh"
#include "kernels/cuda/train/rows.cuh"
#include "kernels/random.h"

// Dropout of octet `index` (elements 8 * index .. 8 * index + 7) of its tensor.
__device__ __forceinline__ void drop(Octet& octet, long long index, const SpionDropout& dropout) {
    if constexpr (kDropout > 0.0F) {
        if (dropout.enabled == 0) return;
        constexpr unsigned int kThreshold = spion_dropout_threshold(kDropout);
        const SpionRandomBits bits =
            spion_random_bits(index, dropout.stream, dropout.step, dropout.seed);
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            const bool keep = spion_keep(bits, e, kThreshold);
            octet.value[e] = keep ? octet.value[e] * (1.0F / (1.0F - kDropout)) : 0.0F;
        }
    }
}
