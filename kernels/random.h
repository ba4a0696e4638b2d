// Counter-based random bits for dropout: Philox 4x32 with 10 rounds (Salmon et al., "Parallel
// random numbers: as easy as 1, 2, 3", SC 2011). Plain C++ without includes, the same bits on both
// back ends.
#pragma once

#ifdef __CUDACC__
#define SPION_RANDOM_FUNCTION static __device__ __forceinline__
#else
#define SPION_RANDOM_FUNCTION static inline
#endif

// Neither these nor kernels/train_arguments.h's constants are constexpr variables: NVRTC would put
// one of each into every kernel's global memory.
enum : int { kPhiloxRounds = 10 };
#define SPION_PHILOX_FACTOR_0 0xD2511F53ULL
#define SPION_PHILOX_FACTOR_1 0xCD9E8D57ULL
#define SPION_PHILOX_STEP_0 0x9E3779B9U
#define SPION_PHILOX_STEP_1 0xBB67AE85U

struct SpionRandomBits {
    unsigned int word[4];
};

// One round of counter c under the keys of that round.
SPION_RANDOM_FUNCTION void spion_philox_round(unsigned int (&c)[4], unsigned int k0,
                                              unsigned int k1) {
    const unsigned long long p0 = SPION_PHILOX_FACTOR_0 * c[0], p1 = SPION_PHILOX_FACTOR_1 * c[2];
    c[0] = (unsigned int)(p1 >> 32) ^ c[1] ^ k0;
    c[2] = (unsigned int)(p0 >> 32) ^ c[3] ^ k1;
    c[1] = (unsigned int)p1;
    c[3] = (unsigned int)p0;
}

// 128 bits for counter (c0, c1, c2, c3) under key seed.
template <int kRounds>
SPION_RANDOM_FUNCTION SpionRandomBits spion_philox(unsigned int c0, unsigned int c1,
                                                   unsigned int c2, unsigned int c3,
                                                   unsigned long long seed) {
    unsigned int c[4] = {c0, c1, c2, c3};
    unsigned int k0 = (unsigned int)seed, k1 = (unsigned int)(seed >> 32);
    for (int round = 0; round < kRounds; ++round) {
        spion_philox_round(c, k0, k1);
        k0 += SPION_PHILOX_STEP_0;
        k1 += SPION_PHILOX_STEP_1;
    }
    return {{c[0], c[1], c[2], c[3]}};
}

// 128 bits for counter (i, stream, step) under key seed.
SPION_RANDOM_FUNCTION SpionRandomBits spion_random_bits(unsigned long long i, unsigned int stream,
                                                        unsigned int step,
                                                        unsigned long long seed) {
    return spion_philox<kPhiloxRounds>((unsigned int)i, (unsigned int)(i >> 32), stream, step,
                                       seed);
}

// round(probability * 65536), for a probability in [0, 1).
SPION_RANDOM_FUNCTION constexpr unsigned int spion_dropout_threshold(float probability) {
    return (unsigned int)(probability * 65536.0F + 0.5F);
}

// Element 8 * group + e, e in 0..7, of a dropout takes 16 bits of the group's 128: bits
// [16 * (e % 2), 16 * (e % 2) + 16) of word e / 2. It is kept iff those are >= the threshold.
SPION_RANDOM_FUNCTION bool spion_keep(const SpionRandomBits& bits, int e, unsigned int threshold) {
    return ((bits.word[e / 2] >> (16 * (e % 2))) & 0xFFFFU) >= threshold;
}

// Dropout of attention's P. What is drawn for query i and key j of batch-head n = b * H + h is a
// function of these and of seed and offset alone: one of the 16 bytes of Philox with 7 rounds, the
// fewest that pass BigCrush (Salmon et al., table 2). 16 elements share a counter, those of 2 x 2
// queries and keys and the ones 8 further on,
//     c0 = i / 16 * 4 + i % 8 / 2,  c1 = j / 16 * 4 + j % 8 / 2,  c2 = n,  c3 = offset,
// so that a quad of a tensor core's accumulator has whole counters, whether its rows are queries or
// keys. The element's byte is number i / 8 % 2 * 2 + j / 8 % 2, from the lowest, of word i % 2 * 2 +
// j % 2. It is dropped where the byte is less than round(256 * dropout).
enum : int { kAttentionPhiloxRounds = 7 };

SPION_RANDOM_FUNCTION SpionRandomBits spion_attention_bits(unsigned int c0, unsigned int c1,
                                                           unsigned int batch_head,
                                                           unsigned int offset,
                                                           unsigned long long seed) {
    return spion_philox<kAttentionPhiloxRounds>(c0, c1, batch_head, offset, seed);
}
