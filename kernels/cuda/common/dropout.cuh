// Dropout on P, for all CUDA bodies: which elements of a warp's scores are kept, by the contract of
// kernels/random.h, and what that does to P and dP (ir/attention.h, docs/ir.md). The same for query
// rows, past which keys stream, and for key rows, past which queries do. Where the operation drops
// nothing, nothing here leaves a trace.
#ifndef SPION_DROPOUT_CUH
#define SPION_DROPOUT_CUH

#include "kernels/attention_arguments.h"
#include "kernels/cuda/common/contract.cuh"
#include "kernels/cuda/common/tile.cuh"
#include "kernels/random.h"

enum : bool { kDrops = (int)kDropped > 0 };
// How many times a kept element counts.
#define kKeptFactor (256.0F / (float)(256 - (int)kDropped))
SPION_DEVICE float kept_factor(const SpionAttentionArguments& args) {
    if constexpr (!kDrops) return 1.0F;
    return args.dropout->enabled != 0 ? kKeptFactor : 1.0F;
}

struct DropoutKey {
    unsigned long long seed;
    unsigned offset, batch_head;
    unsigned all;  // bit 7 of each byte: all elements are kept
};

// batch_head: b * H + h of a query head.
SPION_DEVICE DropoutKey dropout_key(const SpionAttentionArguments& args, unsigned batch_head) {
    if constexpr (!kDrops) return {};
    return {args.dropout->seed, args.dropout->offset, batch_head,
            args.dropout->enabled != 0 ? 0U : 0x80808080U};
}

// Of 16 stationary rows and 8 * kTiles streamed columns, as an accumulator has them: words[n] is
// what this lane has drawn for columns [16 n, + 16), its even columns first. Bit 7 of a byte says
// that the element is kept.
template <bool kRowsAreKeys, int kTiles, bool kDraws = kDrops>
struct KeptElements {
    unsigned words[kTiles / 2][2];
    float factor;

    // The byte of a column's word that belongs to row g (half = 0) or g + 8 (1) of accumulator j.
    SPION_DEVICE int byte_of(int j, int half) {
        return kRowsAreKeys ? j % 2 * 2 + half : half * 2 + j % 2;
    }
    __device__ __forceinline__ bool at(int j, int i) const {
        return (words[j / 2][i % 2] >> (8 * byte_of(j, i / 2) + 7) & 1U) != 0;
    }
    // P of element i of accumulator j as V sees it, but for kKeptFactor.
    __device__ __forceinline__ float probability(int j, int i, float p) const {
        return at(j, i) ? p : 0.0F;
    }
    // dP - delta from dO * V, what is kept counting `factor` times.
    __device__ __forceinline__ float gradient(int j, int i, float product, float delta) const {
        return at(j, i) ? __fmaf_rn(product, factor, -delta) : -delta;
    }
    // The same where the product was added to start().
    __device__ __forceinline__ float start(float) const { return 0.0F; }
    __device__ __forceinline__ float finish(int j, int i, float product, float delta) const {
        return gradient(j, i, product, delta);
    }
    // P as the left operand of a product, packed in pairs of elements.
    __device__ __forceinline__ void drop(unsigned (&left)[kTiles / 2][4]) const {
#pragma unroll
        for (int n = 0; n < kTiles / 2; ++n) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const unsigned byte = 8 + byte_of(i / 2, i % 2);  // its sign, 8 times
                left[n][i] &=
                    permute_bytes(words[n][0], words[n][1], byte * 0x11 + (byte + 4) * 0x1100);
            }
        }
    }
    __device__ __forceinline__ void drop(float (&p)[kTiles][4]) const {
#pragma unroll
        for (int j = 0; j < kTiles; ++j) {
#pragma unroll
            for (int i = 0; i < 4; ++i) p[j][i] = probability(j, i, p[j][i]);
        }
    }
};

template <bool kRowsAreKeys, int kTiles>
struct KeptElements<kRowsAreKeys, kTiles, false> {
    __device__ __forceinline__ float probability(int, int, float p) const { return p; }
    __device__ __forceinline__ float gradient(int, int, float product, float delta) const {
        return product - delta;
    }
    __device__ __forceinline__ float start(float delta) const { return -delta; }
    __device__ __forceinline__ float finish(int, int, float sum, float) const { return sum; }
    __device__ __forceinline__ void drop(unsigned (&)[kTiles / 2][4]) const {}
    __device__ __forceinline__ void drop(float (&)[kTiles][4]) const {}
};

// Bit 7 of each byte of `word`: whether the byte is at least kDropped, or `all` has it.
SPION_DEVICE unsigned kept_bytes(unsigned word, unsigned all) {
    constexpr unsigned kLow = 128 - kDropped % 128;
    const unsigned low = (word & 0x7F7F7F7FU) + kLow * 0x01010101U;
    return ((int)kDropped < 128 ? word | low : word & low) | all;
}

// warp_row: the first of the 16 rows. position_of(n): of the first of columns [16 n, + 16).
//
// An even row's lane and the odd row's beside it (lane ^ 4) need two words each of the same counter:
// each draws for 16 columns and hands the other its half.
template <bool kRowsAreKeys, int kTiles, typename PositionOf>
SPION_DEVICE KeptElements<kRowsAreKeys, kTiles> draw_kept(const DropoutKey& key, int warp_row,
                                                          const PositionOf& position_of) {
    KeptElements<kRowsAreKeys, kTiles> kept;
    if constexpr (kDrops) {
        kept.factor = key.all != 0 ? 1.0F : kKeptFactor;
        const int g = lane_index() / 4, t = lane_index() % 4;
        const bool odd = g % 2 != 0;
        const unsigned row = (unsigned)(warp_row / 4 + g / 2);
#pragma unroll
        for (int n = 0; n < kTiles / 2; n += 2) {
            const bool pair = n + 1 < kTiles / 2;
            const unsigned column = (unsigned)(position_of(pair && odd ? n + 1 : n) / 4 + t);
            const SpionRandomBits bits =
                spion_attention_bits(kRowsAreKeys ? column : row, kRowsAreKeys ? row : column,
                                     key.batch_head, key.offset, key.seed);
            const unsigned even_row[2] = {kept_bytes(bits.word[0], key.all),
                                          kept_bytes(bits.word[kRowsAreKeys ? 2 : 1], key.all)};
            const unsigned odd_row[2] = {kept_bytes(bits.word[kRowsAreKeys ? 1 : 2], key.all),
                                         kept_bytes(bits.word[3], key.all)};
#pragma unroll
            for (int c = 0; c < 2; ++c) {
                if (pair) {
                    const unsigned other =
                        __shfl_xor_sync(0xFFFFFFFFU, odd ? even_row[c] : odd_row[c], 4);
                    kept.words[n][c] = odd ? other : even_row[c];
                    kept.words[n + 1][c] = odd ? odd_row[c] : other;
                } else {
                    kept.words[n][c] = odd ? odd_row[c] : even_row[c];
                }
            }
        }
    }
    return kept;
}

#endif
