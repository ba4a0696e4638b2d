// What the training step's host bodies share: rows of fp32 channels walked eight at a time (an
// octet, the unit of the dropout's random bits), dropout factors, and the rows of a work item.
#pragma once

#include "kernels/host/vector.h"
#include "kernels/random.h"
#include "kernels/train_arguments.h"

typedef float Octet __attribute__((ext_vector_type(8)));
typedef float MemoryOctet __attribute__((ext_vector_type(8), aligned(4), may_alias));
typedef unsigned int Words __attribute__((ext_vector_type(16)));
typedef unsigned long long LongWords __attribute__((ext_vector_type(16)));
typedef unsigned short Halves __attribute__((ext_vector_type(32)));

// Octet `index` of a buffer.
SPION_INLINE Octet load_octet(const void* data, long long index) {
    return static_cast<const MemoryOctet*>(data)[index];
}
SPION_INLINE void store_octet(void* data, long long index, Octet octet) {
    static_cast<MemoryOctet*>(data)[index] = octet;
}

// The sum of the eight lanes, in a fixed order.
SPION_INLINE float sum_of(Octet octet) {
    const auto half = octet.lo + octet.hi;
    const auto quarter = half.lo + half.hi;
    return quarter.x + quarter.y;
}

// spion_random_bits of the counters first, first + 1, .. first + 15: lane j of word w. Each word
// sits in the low half of a 64-bit lane, where products need no unpacking; the high halves are
// noise.
SPION_INLINE void random_words(long long first, const SpionDropout& dropout, Words (&words)[4]) {
    constexpr unsigned long long kLow = 0xFFFFFFFFULL;
    LongWords c0 =
        __builtin_convertvector(lane_numbers(), LongWords) + static_cast<unsigned long long>(first);
    LongWords c1 = c0 >> 32, c2 = dropout.stream, c3 = dropout.step;
    unsigned int k0 = static_cast<unsigned int>(dropout.seed);
    unsigned int k1 = static_cast<unsigned int>(dropout.seed >> 32);
    for (int round = 0; round < kPhiloxRounds; ++round) {
        const LongWords p0 = (c0 & kLow) * SPION_PHILOX_FACTOR_0,
                        p1 = (c2 & kLow) * SPION_PHILOX_FACTOR_1;
        c0 = (p1 >> 32) ^ c1 ^ static_cast<unsigned long long>(k0);
        c2 = (p0 >> 32) ^ c3 ^ static_cast<unsigned long long>(k1);
        c1 = p1;
        c3 = p0;
        k0 += SPION_PHILOX_STEP_0;
        k1 += SPION_PHILOX_STEP_1;
    }
    words[0] = __builtin_convertvector(c0, Words);
    words[1] = __builtin_convertvector(c1, Words);
    words[2] = __builtin_convertvector(c2, Words);
    words[3] = __builtin_convertvector(c3, Words);
}

// words[w] lane j -> rows[j / 4] lanes 4 * (j % 4) + w: the bits of one counter side by side.
SPION_INLINE void side_by_side(const Words (&words)[4], Words (&rows)[4]) {
    for (int half = 0; half < 2; ++half) {
        Words pairs[2];  // words 0 and 1, words 2 and 3, alternating
        for (int pair = 0; pair < 2; ++pair) {
            const Words a = words[2 * pair], b = words[2 * pair + 1];
            pairs[pair] = half == 0 ? __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4,
                                                              20, 5, 21, 6, 22, 7, 23)
                                    : __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27,
                                                              12, 28, 13, 29, 14, 30, 15, 31);
        }
        rows[2 * half] = __builtin_shufflevector(pairs[0], pairs[1], 0, 1, 16, 17, 2, 3, 18, 19, 4,
                                                 5, 20, 21, 6, 7, 22, 23);
        rows[2 * half + 1] = __builtin_shufflevector(pairs[0], pairs[1], 8, 9, 24, 25, 10, 11, 26,
                                                     27, 12, 13, 28, 29, 14, 15, 30, 31);
    }
}

// The factors of a dropout, 0 or 1 / (1 - p), for elements asked for in ascending order: they are
// made for sixteen octets at a time. Of no cost when the dropout is off.
template <bool kOn>
class DropoutFactors {
  public:
    SPION_INLINE_MEMBER DropoutFactors(const SpionDropout& dropout, float probability)
        : dropout_(spion_dropout_now(dropout)),
          threshold_(spion_dropout_threshold(probability)),
          scale_(1.0F / (1.0F - probability)) {}

    // octet * the factors of the tensor's octet `index`.
    SPION_INLINE_MEMBER Octet drop(Octet octet, long long index) {
        if (!kOn) return octet;
        if (index / kOctets != chunk_) make(index / kOctets);
        return octet * load_octet(factors_, index % kOctets);
    }

  private:
    static constexpr int kOctets = 16;

    // Out of line: a body asks in several places.
    __attribute__((noinline)) void make(long long chunk) {
        Words words[4], rows[4];
        random_words(chunk * kOctets, dropout_, words);
        side_by_side(words, rows);
        for (int r = 0; r < 4; ++r) {
            // Little-endian halves are the elements in order.
            const Halves halves = __builtin_bit_cast(Halves, rows[r]);
            const Words low = __builtin_convertvector(halves.lo, Words);
            const Words high = __builtin_convertvector(halves.hi, Words);
            store(factors_ + 32 * r, low >= threshold_ ? Floats(scale_) : Floats(0.0F));
            store(factors_ + 32 * r + 16, high >= threshold_ ? Floats(scale_) : Floats(0.0F));
        }
        chunk_ = chunk;
    }

    SpionDropout dropout_;
    unsigned int threshold_;
    float scale_;
    long long chunk_ = -1;
    float factors_[8 * kOctets];
};

// Calls work(factors) with the dropout's factors, on or off: decided once, outside the loops.
template <typename Work>
SPION_INLINE void with_dropout(const SpionDropout& dropout, float probability, Work work) {
    if (probability > 0.0F && dropout.enabled != 0) {
        work(DropoutFactors<true>(dropout, probability));
    } else {
        work(DropoutFactors<false>(dropout, probability));
    }
}

// The end of work item `item` of `rows` rows; it starts at item * kSpionRowsPerItem.
SPION_INLINE long long end_of_rows(long long item, long long rows) {
    const long long end = (item + 1) * kSpionRowsPerItem;
    return end < rows ? end : rows;
}

SPION_INLINE void zero(float* data, long long count) {
    for (long long i = 0; i < count; ++i) data[i] = 0.0F;
}
