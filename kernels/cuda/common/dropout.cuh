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
    unsigned all;  // every bit: all elements are kept
};

// batch_head: b * H + h of a query head.
SPION_DEVICE DropoutKey dropout_key(const SpionAttentionArguments& args, unsigned batch_head) {
    if constexpr (!kDrops) return {};
    return {args.dropout->seed, args.dropout->offset, batch_head,
            args.dropout->enabled != 0 ? 0U : ~0U};
}

// Of 16 stationary rows and 8 * kTiles streamed columns, as an accumulator has them: which elements
// of this lane's are kept, a bit each. Byte b of words[w] has those of columns [64 w, + 64) that
// byte b of a drawn word decides.
template <bool kRowsAreKeys, int kTiles, bool kDraws = kDrops>
struct KeptElements {
    static_assert(kTiles == 2 || kTiles == 4 || kTiles % 8 == 0, "lanes draw in pairs");
    unsigned words[(kTiles + 7) / 8];
    bool all;  // the launch drops nothing

    // How many times a kept element counts, and 1 by that.
    __device__ __forceinline__ float counts() const { return all ? 1.0F : kKeptFactor; }
    __device__ __forceinline__ float share() const { return all ? 1.0F : 1.0F / kKeptFactor; }

    // The byte that belongs to row g (half = 0) or g + 8 (1) of accumulator j.
    SPION_DEVICE int byte_of(int j, int half) {
        return kRowsAreKeys ? j % 2 * 2 + half : half * 2 + j % 2;
    }
    // The bit in it of an even (c = 0) or odd (1) column of [16 n, + 16).
    SPION_DEVICE int bit_of(int n, int c) { return (n % 2 == 0 ? 7 : 3) - n / 2 % 2 * 2 - c; }
    // Not 0 where element i of accumulator j is kept.
    __device__ __forceinline__ unsigned bit(int j, int i) const {
        return words[j / 8] & (1U << (8 * byte_of(j, i / 2) + bit_of(j / 2, i % 2)));
    }
    __device__ __forceinline__ bool at(int j, int i) const { return bit(j, i) != 0; }
    // P, or 0 where it is dropped.
    __device__ __forceinline__ float keep(int j, int i, float p) const {
        return keep_where(bit(j, i), p);
    }
    // dP - delta from dO * V, what is kept counting counts() times.
    __device__ __forceinline__ float gradient(int j, int i, float product, float delta) const {
        return at(j, i) ? __fmaf_rn(product, counts(), -delta) : -delta;
    }
    // P * (dP - delta), all divided by counts(): `delta` is so already.
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
        for_each([&](int j, int i) { p[j][i] = keep(j, i, p[j][i]); });
    }
    // What is kept of the 8 * kPart columns from `column` on.
    template <int kPart>
    __device__ __forceinline__ KeptElements<kRowsAreKeys, kPart> part(int column) const {
        static_assert(kPart == kTiles || (kPart < kTiles && kTiles <= 8), "one word has it");
        KeptElements<kRowsAreKeys, kPart> some;
        some.all = all;
        const int n = column / 16;
        if constexpr (kPart < kTiles) some.words[0] = words[0] << (7 - bit_of(n, 0));
        if constexpr (kPart == kTiles) some = *this;
        return some;
    }
    // visit(j, i) for element i of accumulator j, all of them, byte by byte of `words`: so their bits
    // become predicates several at a time (R2P).
    template <typename Visit>
    __device__ __forceinline__ static void for_each(const Visit& visit) {
#pragma unroll
        for (int byte = 0; byte < 4; ++byte) {
#pragma unroll
            for (int n = 0; n < kTiles / 2; ++n) {
                visit(2 * n + byte / 2, byte % 2 * 2);
                visit(2 * n + byte / 2, byte % 2 * 2 + 1);
            }
        }
    }
};

template <bool kRowsAreKeys, int kTiles>
struct KeptElements<kRowsAreKeys, kTiles, false> {
    __device__ __forceinline__ float counts() const { return 1.0F; }
    __device__ __forceinline__ float share() const { return 1.0F; }
    __device__ __forceinline__ float keep(int, int, float p) const { return p; }
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
    template <int kPart>
    __device__ __forceinline__ KeptElements<kRowsAreKeys, kPart> part(int) const {
        return {};
    }
    template <typename Visit>
    __device__ __forceinline__ static void for_each(const Visit& visit) {
#pragma unroll
        for (int j = 0; j < kTiles; ++j) {
#pragma unroll
            for (int i = 0; i < 4; ++i) visit(j, i);
        }
    }
};

// Bit 7 of each byte of `word`: whether the byte is at least kDropped. Other bits are 0.
SPION_DEVICE unsigned kept_bytes(unsigned word) {
    constexpr unsigned kSigns = 0x80808080U, kLow = 128 - kDropped % 128;
    const unsigned low = (word & ~kSigns) + kLow * 0x01010101U;
    return ((int)kDropped < 128 ? word | low : word & low) & kSigns;
}

// To the bits of a row, those of 16 columns more, which come before those that it has: `even` and
// `odd`, drawn words as kept_bytes leaves them, are those of columns c and c + 1.
SPION_DEVICE void put_bits(unsigned& row, unsigned even, unsigned odd) {
    row = even + ((odd + (row >> 1)) >> 1);
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

// warp_row: the first of the 16 rows. quarter_of(n): a quarter of the position of the first of
// columns [16 n, + 16).
//
// An even row's lane and the odd row's beside it (lane ^ 4) need two words each of the same
// counter: each draws for 16 columns in turn, n even, the odd row's lane for the 16 behind them
// where the tile has them, and hands the other its half of the bits.
template <bool kRowsAreKeys, int kTiles, typename QuarterOf>
SPION_DEVICE KeptElements<kRowsAreKeys, kTiles> draw_kept(const DropoutKey& key, int warp_row,
                                                          const QuarterOf& quarter_of) {
    constexpr int kWords = (kTiles + 7) / 8, kLast = (kTiles / 2 - 1) / 2 * 2;
    constexpr int kTogether = kGatherRows / 16;  // 16 columns each of a gather block
    constexpr bool kPairs = kTiles >= 4;
    KeptElements<kRowsAreKeys, kTiles> kept;
    if constexpr (kDrops) {
        kept.all = key.all != 0;
        const int odd = lane_index() & 4;  // not 0 of an odd row
        const unsigned row = (unsigned)(warp_row / 4 + lane_index() / 8);
        // Of a gather block of 32 rows or more, which both lanes draw for: 4 columns further if odd.
        const unsigned lane_column = lane_index() % (kPairs && kTogether > 1 ? 8 : 4);
        unsigned even_row[kWords] = {}, odd_row[kWords] = {}, first = 0;
#pragma unroll
        for (int n = kLast; n >= 0; n -= 2) {  // the bits of larger n move down, two by two
            const int within = n % kTogether;
            if (n == kLast || within + 2 >= kTogether) first = quarter_of(n - within) | lane_column;
            unsigned column = first ^ (unsigned)(4 * within);
            if (kPairs && kTogether == 1 && odd != 0) column = quarter_of(n + 1) | lane_column;
            const SpionRandomBits bits = attention_bits<kRowsAreKeys>(
                kRowsAreKeys ? column : row, kRowsAreKeys ? row : column, key);
            unsigned kept_of[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) kept_of[i] = kept_bytes(bits.word[i]);
            constexpr int kNext = kRowsAreKeys ? 2 : 1;  // the word of the column beside
            put_bits(even_row[n / 4], kept_of[0], kept_of[kNext]);
            put_bits(odd_row[n / 4], kept_of[3 - kNext], kept_of[3]);
        }
        // Bits are where an even n has them; the odd row's lane has drawn for an odd one.
        const int down = kPairs ? odd : 0;
#pragma unroll
        for (int w = 0; w < kWords; ++w) {
            kept.words[w] = (odd != 0 ? odd_row[w] : even_row[w]) >> down | key.all;
            if constexpr (kPairs) {
                kept.words[w] |=
                    __shfl_xor_sync(0xFFFFFFFFU, (odd != 0 ? even_row[w] : odd_row[w]) >> down, 4);
            }
        }
    }
    return kept;
}

#endif
