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

// Of 16 stationary rows and 8 * kTiles streamed columns, as an accumulator has them: which elements
// of this lane's are kept, a bit each. Byte b of words[w] has those of columns [64 w, + 64) that
// byte b of a drawn word decides.
template <bool kRowsAreKeys, int kTiles, bool kDraws = kDrops>
struct KeptElements {
    static_assert(kTiles == 2 || kTiles == 4 || kTiles % 8 == 0, "lanes draw in pairs");
    unsigned words[(kTiles + 7) / 8];
    float factor;  // how many times a kept element counts

    __device__ __forceinline__ float counts() const { return factor; }

    // The byte that belongs to row g (half = 0) or g + 8 (1) of accumulator j.
    SPION_DEVICE int byte_of(int j, int half) {
        return kRowsAreKeys ? j % 2 * 2 + half : half * 2 + j % 2;
    }
    // The bit in it of an even (c = 0) or odd (1) column of [16 n, + 16).
    SPION_DEVICE int bit_of(int n, int c) { return (n % 2 == 0 ? 7 : 3) - n / 2 % 2 * 2 - c; }
    __device__ __forceinline__ bool at(int j, int i) const {
        return (words[j / 8] >> (8 * byte_of(j, i / 2) + bit_of(j / 2, i % 2)) & 1U) != 0;
    }
    // dP - delta from dO * V, what is kept counting `factor` times.
    __device__ __forceinline__ float gradient(int j, int i, float product, float delta) const {
        return at(j, i) ? __fmaf_rn(product, factor, -delta) : -delta;
    }
    // P * (dP - delta), all divided by `factor`: `delta` is so already.
    __device__ __forceinline__ float score_gradient(int j, int i, float p, float product,
                                                    float delta) const {
        const float dropped = -delta * p;
        return at(j, i) ? __fmaf_rn(p, product, dropped) : dropped;
    }
    // gradient() where the product was added to start().
    __device__ __forceinline__ float start(float) const { return 0.0F; }
    __device__ __forceinline__ float finish(int j, int i, float product, float delta) const {
        return gradient(j, i, product, delta);
    }
    // P as the left operand of a product, packed in pairs of elements.
    __device__ __forceinline__ void drop(unsigned (&left)[kTiles / 2][4]) const {
#pragma unroll
        for (int n = 0; n < kTiles / 2; ++n) {
            const unsigned even = words[n / 4] << (7 - bit_of(n, 0)),
                           odd = words[n / 4] << (7 - bit_of(n, 1));
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const unsigned byte = 8 + byte_of(i / 2, i % 2);  // its sign, 8 times
                left[n][i] &= permute_bytes(even, odd, byte * 0x11 + (byte + 4) * 0x1100);
            }
        }
    }
    __device__ __forceinline__ void drop(float (&p)[kTiles][4]) const {
#pragma unroll
        for (int j = 0; j < kTiles; ++j) {
#pragma unroll
            for (int i = 0; i < 4; ++i) p[j][i] = at(j, i) ? p[j][i] : 0.0F;
        }
    }
};

template <bool kRowsAreKeys, int kTiles>
struct KeptElements<kRowsAreKeys, kTiles, false> {
    __device__ __forceinline__ float counts() const { return 1.0F; }
    __device__ __forceinline__ float gradient(int, int, float product, float delta) const {
        return product - delta;
    }
    __device__ __forceinline__ float score_gradient(int, int, float p, float product,
                                                    float delta) const {
        return p * (product - delta);
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

// spion_attention_bits of kernels/random.h. Products are those of 32 bits by 32, which the compiler
// does not see in all of them: it would add the upper half of a factor, 0 each time. Those of the
// first rounds that stationary rows alone decide are left to it, as it takes no asm out of a loop.
template <bool kRowsAreKeys>
SPION_DEVICE SpionRandomBits attention_bits(unsigned c0, unsigned c1, const DropoutKey& key) {
    unsigned c[4] = {c0, c1, key.batch_head, key.offset};
    unsigned k0 = (unsigned)key.seed, k1 = (unsigned)(key.seed >> 32);
#pragma unroll
    for (int round = 0; round < kAttentionPhiloxRounds; ++round) {
        const bool stays_0 = kRowsAreKeys ? round == 1 : round == 0 || round == 2;
        const bool stays_1 = round == 0 || (round == 1 && !kRowsAreKeys);
        const unsigned long long p0 = stays_0
                                          ? SPION_PHILOX_FACTOR_0 * c[0]
                                          : multiply_wide(c[0], (unsigned)SPION_PHILOX_FACTOR_0),
                                 p1 = stays_1
                                          ? SPION_PHILOX_FACTOR_1 * c[2]
                                          : multiply_wide(c[2], (unsigned)SPION_PHILOX_FACTOR_1);
        c[0] = (unsigned)(p1 >> 32) ^ c[1] ^ k0;
        c[2] = (unsigned)(p0 >> 32) ^ c[3] ^ k1;
        c[1] = (unsigned)p1;
        c[3] = (unsigned)p0;
        k0 += SPION_PHILOX_STEP_0;
        k1 += SPION_PHILOX_STEP_1;
    }
    return {{c[0], c[1], c[2], c[3]}};
}

// Of drawn words as kept_bytes leaves them, those of columns c and c + 1 of [16 n, + 16): their
// bits come to where KeptElements::bit_of(n, 0) and (n, 1) have them in `kept`, which has none yet
// of larger n.
SPION_DEVICE unsigned put_bits(int n, unsigned even, unsigned odd, unsigned kept) {
    constexpr unsigned kSigns = 0x80808080U;
    const unsigned pair = merge_bits(kSigns, even, odd >> 1);
    return n % 4 == 0 ? pair : merge_bits(0xC0C0C0C0U, kept, pair >> 2);
}

// warp_row: the first of the 16 rows. quarter_of(n): a quarter of the position of the first of
// columns [16 n, + 16).
//
// An even row's lane and the odd row's beside it (lane ^ 4) need two words each of the same
// counter: each draws for 16 columns in turn, n even, the odd row's lane for the 16 behind them
// where the tile has them, and hands the other its half of the bits.
template <bool kRowsAreKeys, int kTiles, typename QuarterOf>
SPION_DEVICE KeptElements<kRowsAreKeys, kTiles> draw_kept(const DropoutKey& key, int warp_row,
                                                          const QuarterOf& quarter_of) {
    constexpr int kWords = (kTiles + 7) / 8;
    constexpr bool kPairs = kTiles >= 4;
    KeptElements<kRowsAreKeys, kTiles> kept;
    if constexpr (kDrops) {
        kept.factor = key.all != 0 ? 1.0F : kKeptFactor;
        const int g = lane_index() / 4, t = lane_index() % 4;
        const bool odd = g % 2 != 0;
        const unsigned row = (unsigned)(warp_row / 4 + g / 2);
        // What both lanes draw for is in one gather block of 32 rows.
        const unsigned lane_column = (unsigned)(kPairs && kGatherRows >= 32 && odd ? 4 + t : t);
        unsigned even_row[kWords], odd_row[kWords], first = 0;
#pragma unroll
        for (int n = 0; n < kTiles / 2; n += 2) {
            if (16 * n % kGatherRows == 0) first = quarter_of(n) - 4 * n;
            unsigned column = first + 4 * n + lane_column;
            if (kPairs && kGatherRows < 32 && odd) column = quarter_of(n + 1) + t;
            const SpionRandomBits bits = attention_bits<kRowsAreKeys>(
                kRowsAreKeys ? column : row, kRowsAreKeys ? row : column, key);
            unsigned word[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) word[i] = kept_bytes(bits.word[i], key.all);
            even_row[n / 4] =
                put_bits(n, word[0], word[kRowsAreKeys ? 2 : 1], n % 4 == 0 ? 0 : even_row[n / 4]);
            odd_row[n / 4] =
                put_bits(n, word[kRowsAreKeys ? 1 : 2], word[3], n % 4 == 0 ? 0 : odd_row[n / 4]);
        }
#pragma unroll
        for (int w = 0; w < kWords; ++w) {
            const unsigned own = odd ? odd_row[w] : even_row[w];
            if constexpr (kPairs) {
                const unsigned other =
                    __shfl_xor_sync(0xFFFFFFFFU, odd ? even_row[w] : odd_row[w], 4);
                kept.words[w] =
                    merge_bits(0xF0F0F0F0U, odd ? other : own, (odd ? own : other) >> 4);
            } else {
                kept.words[w] = own;
            }
        }
    }
    return kept;
}

#endif
