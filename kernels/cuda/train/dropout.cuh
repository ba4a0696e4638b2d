// The dropout of an octet. Needs the constant kDropout of the generated source.
#pragma once

#include "kernels/cuda/train/contract.cuh"
#include "kernels/cuda/train/octet.cuh"
#include "kernels/random.h"

// The factors of octet `index` (elements 8 * index .. 8 * index + 7) of its tensor: 0, or
// 1 / (1 - kDropout). spion_keep's comparison of 16 bits, as one of words whose upper half they are.
__device__ __forceinline__ Octet dropout_factors(long long index, const SpionDropout& dropout) {
    Octet factors = {{1, 1, 1, 1, 1, 1, 1, 1}};
    if constexpr (kDropout > 0.0F) {
        if (dropout.enabled == 0) return factors;
        constexpr unsigned int kThreshold = spion_dropout_threshold(kDropout);
        constexpr unsigned int kLastDropped = kThreshold * 65536U - 1U;
        constexpr float kKept = 1.0F / (1.0F - kDropout);
        const SpionRandomBits bits =
            spion_random_bits(index, dropout.stream, dropout.step, dropout.seed);
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            const unsigned int drawn = e % 2 == 0 ? bits.word[e / 2] << 16 : bits.word[e / 2];
            factors.value[e] = kThreshold == 0 || drawn > kLastDropped ? kKept : 0.0F;
        }
    }
    return factors;
}

__device__ __forceinline__ void drop(Octet& octet, long long index, const SpionDropout& dropout) {
    if constexpr (kDropout > 0.0F) {
        if (dropout.enabled == 0) return;
        const Octet factors = dropout_factors(index, dropout);
#pragma unroll
        for (int e = 0; e < 8; ++e) {  // what is dropped may be infinite
            octet.value[e] = factors.value[e] == 0.0F ? 0.0F : octet.value[e] * factors.value[e];
        }
    }
}
