// What the dropouts of a layer's end keep: drawn once, a bit an element, and read by its passes. Needs the
// constants kDropout and kHidden of the generated source. kernels/layer_arguments.h has the layout.
#pragma once

#include "kernels/cuda/train/contract.cuh"
#include "kernels/cuda/train/octet.cuh"
#include "kernels/layer_arguments.h"

// Words of a lane for its 16 rows, and the places of the three dropouts in them.
enum : int {
    kKeptWords = spion_kept_words(kChannels, kHidden),
    kKeptOut = 0,
    kKeptBranch = 1,
    kKeptGelu = 2
};
static_assert(kChannels == 64 && kHidden % 64 == 0, "whole words");

// Where the lane's words for the rows from `first`, a multiple of 16, begin; they are 32 apart.
SPION_DEVICE unsigned kept_index(unsigned first) {
    return first / kSpionWarpRows * (kKeptWords * 32) + threadIdx.x % 32;
}

// A lane's word of 64 columns of a tensor: octets of elements 8 * index .. 8 * index + 7, for `index`, the
// one `apart` further on, and both again 4 further on.
SPION_DEVICE unsigned draw_word(unsigned index, unsigned apart, unsigned stream, unsigned keys,
                                const SpionDraws& draws) {
    constexpr unsigned kUpper = 0x80008000U;
    unsigned int c[4][4] = {{index, 0, stream, draws.step},
                            {index + apart, 0, stream, draws.step},
                            {index + 4, 0, stream, draws.step},
                            {index + apart + 4, 0, stream, draws.step}};
#pragma unroll
    for (int round = 0; round < kPhiloxRounds; round += 2) {
        const uint4 key = load_shared_16(keys + round * 8);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            spion_philox_round(c[i], key.x, key.y);
            spion_philox_round(c[i], key.z, key.w);
        }
    }
    unsigned bits = 0;
#pragma unroll
    for (int pair = 0; pair < 16; ++pair) {
        const unsigned drawn = c[pair / 4][pair % 4];
        const unsigned lower = (drawn | kUpper) - draws.lower_threshold;
        const unsigned most =
            (drawn & draws.not_threshold) | (lower & draws.not_threshold) | (drawn & lower);
        bits = bits >> 1 | (most & kUpper);
    }
    return bits;
}

// Which elements are kept of two octets, as they are packed: ones in the half of a word whose element
// is kept, zeros in that of a dropped one.
struct Kept {
    unsigned mask[2][4];

    // Those of the first or the second group of 32 columns of a word.
    __device__ __forceinline__ Kept(unsigned word, int group) {
        if constexpr (kDropout == 0.0F) return;
        word <<= 8 * (1 - group % 2);
#pragma unroll
        for (int pair = 0; pair < 8; ++pair) {
            const unsigned upper = word
                                   << (7 - pair);  // the pair's bits are those of bytes 1 and 3
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
