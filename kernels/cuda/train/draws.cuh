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

// Which elements dropout keeps of two octets, as they are packed: ones in the half of a word whose
// element is kept, zeros in that of a dropped one.
struct Kept {
    unsigned mask[2][4];

    // Draws for octets `index` and `index + apart` of a tensor (elements 8 * index .. 8 * index + 7).
    __device__ __forceinline__ void draw(unsigned index, unsigned apart, unsigned stream,
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
        for (int pair = 0; pair < 8; ++pair) {
            const unsigned drawn = c[pair / 4][pair % 4];
            const unsigned lower = (drawn | 0x80008000U) - draws.lower_threshold;
            const unsigned most =
                (drawn & draws.not_threshold) | (lower & draws.not_threshold) | (drawn & lower);
            mask[pair / 4][pair % 4] = permute_bytes(most, most, 0xBB99U);
        }
    }
    // Half a word of SpionLayerEndArguments::kept, the lower one.
    __device__ __forceinline__ unsigned bits() const {
        unsigned bits = 0;
#pragma unroll
        for (int pair = 0; pair < 8; ++pair) {
            bits |= mask[pair / 4][pair % 4] & 0x00010001U << pair;
        }
        return bits;
    }
    // The reverse, of the upper half.
    __device__ __forceinline__ void of_bits(unsigned bits) {
#pragma unroll
        for (int pair = 0; pair < 8; ++pair) {
            const unsigned upper = bits << (7 - pair);
            mask[pair / 4][pair % 4] = permute_bytes(upper, upper, 0xBB99U);
        }
    }
    // Octet i with zeros in place of what is dropped; the scale is left to the caller.
    __device__ __forceinline__ uint4 apply(int i, const uint4& octet) const {
        if constexpr (kDropout == 0.0F) return octet;
        return make_uint4(octet.x & mask[i][0], octet.y & mask[i][1], octet.z & mask[i][2],
                          octet.w & mask[i][3]);
    }
    // Octet i with those of `other` there.
    __device__ __forceinline__ uint4 apply(int i, const uint4& octet, const uint4& other) const {
        if constexpr (kDropout == 0.0F) return octet;
        const auto select = [&](unsigned word, unsigned instead, int j) {
            return (word & mask[i][j]) | (instead & ~mask[i][j]);
        };
        return make_uint4(select(octet.x, other.x, 0), select(octet.y, other.y, 1),
                          select(octet.z, other.z, 2), select(octet.w, other.w, 3));
    }
};
