// Drawing what a dropout keeps, a bit an element, and applying those bits. Needs the constant kDropout of
// the generated source.
#pragma once

#include "kernels/cuda/train/contract.cuh"
#include "kernels/cuda/train/octet.cuh"
#include "kernels/layer_arguments.h"

// The bits of four octets, whose numbers in the tensor of stream `stream` are `octets`: pair j, elements 2j
// and 2j + 1, of octet i at bits p and 16 + p with p = 4 i + j. keys(r) are those of rounds r and r + 1, the
// step in them (spion_key_now).
template <typename Keys>
SPION_DEVICE unsigned draw_octets(const unsigned (&octets)[4], unsigned stream,
                                  const SpionDraws& draws, const Keys& keys) {
    if (draws.drops == 0) return ~0U;
    unsigned int c[4][4] = {{octets[0], 0, stream, 0},
                            {octets[1], 0, stream, 0},
                            {octets[2], 0, stream, 0},
                            {octets[3], 0, stream, 0}};
#pragma unroll
    for (int round = 0; round < kPhiloxRounds; round += 2) {
        const uint4 key = keys(round);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            spion_philox_round(c[i], key.x, key.y);
            spion_philox_round(c[i], key.z, key.w);
        }
    }
    unsigned bits = 0;
#pragma unroll
    for (int pair = 15; pair >= 0; --pair) {
        const unsigned drawn = __vmaxu2(c[pair / 4][pair % 4], draws.last_dropped);
        bits = bits * 2 + __viaddmin_u16x2(drawn, draws.minus_last_dropped, 0x00010001U);
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
