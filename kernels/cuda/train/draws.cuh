// The dropouts of kernels that draw much, for the two octets of a lane's rows at once. Needs the
// constant kDropout of the generated source.
#pragma once

#include "kernels/cuda/train/contract.cuh"
#include "kernels/cuda/train/octet.cuh"
#include "kernels/layer_arguments.h"

// Shared memory for the keys, which a loop over rows would keep in registers: a multiple of 128.
enum : int { kKeyBytes = 128 };
static_assert(2 * kPhiloxRounds * 4 <= kKeyBytes && kPhiloxRounds % 2 == 0);

SPION_DEVICE void load_keys(unsigned keys, const SpionDraws& draws) {
    for (int i = (int)threadIdx.x; i < 2 * kPhiloxRounds; i += kThreads) {
        store_shared_word(keys + i * 4, draws.key[i]);
    }
}

// Which elements dropout keeps of two octets of a tensor, `index` and `index + apart` (of elements
// 8 * index .. 8 * index + 7).
struct Kept {
    bool element[2][8];

    __device__ __forceinline__ void of(unsigned index, unsigned apart, unsigned stream,
                                       unsigned keys, const SpionDraws& draws) {
        unsigned int c[2][4] = {{index, 0, stream, draws.step},
                                {index + apart, 0, stream, draws.step}};
#pragma unroll
        for (int round = 0; round < kPhiloxRounds; round += 2) {
            const uint4 key = load_shared_16(keys + round * 8);
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                spion_philox_round(c[i], key.x, key.y);
                spion_philox_round(c[i], key.z, key.w);
            }
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
            for (int e = 0; e < 8; ++e) {
                const unsigned drawn = e % 2 == 0 ? c[i][e / 2] << 16 : c[i][e / 2];
                element[i][e] = drawn >= draws.least_kept;
            }
        }
    }
    // Zeros in place of what is dropped; the scale is left to the caller.
    __device__ __forceinline__ void apply(Octet (&octets)[2]) const {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
            for (int e = 0; e < 8; ++e) {
                octets[i].value[e] = element[i][e] ? octets[i].value[e] : 0.0F;
            }
        }
    }
};

SPION_DEVICE void drop_unscaled(Octet (&octets)[2], unsigned index, unsigned apart, unsigned stream,
                                unsigned keys, const SpionDraws& draws) {
    if constexpr (kDropout > 0.0F) {
        Kept kept;
        kept.of(index, apart, stream, keys, draws);
        kept.apply(octets);
    }
}
