// Dropout on P, for all host bodies: what each element counts, by the contract of kernels/random.h.
#pragma once

#include "kernels/attention_arguments.h"
#include "kernels/host/tile.h"
#include "kernels/random.h"

extern "C" {
extern const int kDropped;  // of 256 values of a random byte, those that drop an element; 0: none
}

typedef unsigned Words __attribute__((ext_vector_type(16)));
typedef unsigned long long LongWords __attribute__((ext_vector_type(16)));

// spion_attention_bits of 16 counters.
SPION_INLINE void attention_bits(const Words (&counter)[4], unsigned long long seed,
                                 unsigned (&bits)[4][16]) {
    Words c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    unsigned k0 = static_cast<unsigned>(seed), k1 = static_cast<unsigned>(seed >> 32);
    for (int round = 0; round < kAttentionPhiloxRounds; ++round) {
        const LongWords p0 = SPION_PHILOX_FACTOR_0 * __builtin_convertvector(c0, LongWords);
        const LongWords p1 = SPION_PHILOX_FACTOR_1 * __builtin_convertvector(c2, LongWords);
        const Words n0 = __builtin_convertvector(p1 >> 32, Words) ^ c1 ^ k0;
        const Words n2 = __builtin_convertvector(p0 >> 32, Words) ^ c3 ^ k1;
        c1 = __builtin_convertvector(p1, Words);
        c3 = __builtin_convertvector(p0, Words);
        c0 = n0;
        c2 = n2;
        k0 += SPION_PHILOX_STEP_0;
        k1 += SPION_PHILOX_STEP_1;
    }
    __builtin_memcpy(bits[0], &c0, sizeof(c0));
    __builtin_memcpy(bits[1], &c1, sizeof(c1));
    __builtin_memcpy(bits[2], &c2, sizeof(c2));
    __builtin_memcpy(bits[3], &c3, sizeof(c3));
}

// What elements [rows][lanes] count: 0, or 256 / (256 - kDropped). Lanes are positions from `row`
// on, rows from `column` on, both multiples of 16.
SPION_INLINE void draw(const SpionAttentionArguments& args, bool rows_are_keys, int batch_head,
                       long long row, long long column, int rows, float* factors) {
    if (args.dropout->enabled == 0) {
        for (int at = 0; at < rows * kStationaryRows; at += kLanes) {
            store(factors + at, Floats(1.0F));
        }
        return;
    }
    const float kept = 256.0F / static_cast<float>(256 - kDropped);
    for (int first = 0; first < rows; first += 16) {
        for (int lane = 0; lane < kStationaryRows; lane += kLanes) {
            // The 16 counters of 16 x 16 elements: 4 of queries by 4 of keys.
            const auto stationary = static_cast<unsigned>((row + lane) / 4);
            const auto streamed = static_cast<unsigned>((column + first) / 4);
            const Words n = __builtin_convertvector(lane_numbers(), Words);
            const Words counter[4] = {(rows_are_keys ? streamed : stationary) + n / 4,
                                      (rows_are_keys ? stationary : streamed) + n % 4,
                                      Words(static_cast<unsigned>(batch_head)),
                                      Words(args.dropout->offset)};
            unsigned bits[4][16];
            attention_bits(counter, args.dropout->seed, bits);
            for (int s = 0; s < 16 && first + s < rows; ++s) {
                for (int l = 0; l < 16; ++l) {
                    const int i = rows_are_keys ? s : l, j = rows_are_keys ? l : s;
                    const unsigned word = bits[i % 2 * 2 + j % 2][i % 8 / 2 * 4 + j % 8 / 2];
                    const unsigned byte = word >> (i / 8 * 16 + j / 8 * 8) & 255U;
                    factors[(first + s) * kStationaryRows + lane + l] =
                        byte < static_cast<unsigned>(kDropped) ? 0.0F : kept;
                }
            }
        }
    }
}
