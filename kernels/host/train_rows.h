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

// spion_random_bits of the counters first, first + 1, .. first + 15: lane j of word w.
SPION_INLINE void random_words(long long first, const SpionDropout& dropout, Words (&words)[4]) {
    const LongWords counter =
        __builtin_convertvector(lane_numbers(), LongWords) + static_cast<unsigned long long>(first);
    Words c0 = __builtin_convertvector(counter, Words);
    Words c1 = __builtin_convertvector(counter >> 32, Words);
    Words c2 = dropout.stream, c3 = dropout.step;
    unsigned int k0 = static_cast<unsigned int>(dropout.seed);
    unsigned int k1 = static_cast<unsigned int>(dropout.seed >> 32);
    for (int round = 0; round < kPhiloxRounds; ++round) {
        const LongWords p0 = __builtin_convertvector(c0, LongWords) * kPhiloxFactor0;
        const LongWords p1 = __builtin_convertvector(c2, LongWords) * kPhiloxFactor1;
        const Words n0 = __builtin_convertvector(p1 >> 32, Words) ^ c1 ^ k0;
        const Words n2 = __builtin_convertvector(p0 >> 32, Words) ^ c3 ^ k1;
        c1 = __builtin_convertvector(p1, Words);
        c3 = __builtin_convertvector(p0, Words);
        c0 = n0;
        c2 = n2;
        k0 += kPhiloxStep0;
        k1 += kPhiloxStep1;
    }
    words[0] = c0;
    words[1] = c1;
    words[2] = c2;
    words[3] = c3;
}

// The factors of a dropout, 0 or 1 / (1 - p), for elements asked for in ascending order: they are
// made for sixteen octets at a time. Of no cost when the dropout is off.
template <bool kOn>
class DropoutFactors {
  public:
    SPION_INLINE_MEMBER DropoutFactors(const SpionDropout& dropout, float probability)
        : dropout_(dropout),
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
        Words words[4];
        random_words(chunk * kOctets, dropout_, words);
        unsigned int bits[kOctets][4];
        for (int j = 0; j < kOctets; ++j) {
            for (int w = 0; w < 4; ++w) bits[j][w] = words[w][j];
        }
        for (int n = 0; n < 4 * kOctets; ++n) {
            const unsigned int word = bits[n / 4][n % 4];
            factors_[2 * n] = (word & 0xFFFFU) >= threshold_ ? scale_ : 0.0F;
            factors_[2 * n + 1] = (word >> 16) >= threshold_ ? scale_ : 0.0F;
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
