// What happens to a score, for all CUDA bodies. A score is a raw product q . k; exponents are base
// 2, with kScale * log2(e) folded into one multiply-add. What else is to happen to a score (a cap,
// a bias) belongs in change_scores and ScoreSlopes.
#ifndef SPION_SCORE_CUH
#define SPION_SCORE_CUH

#include "kernels/cuda/common/contract.cuh"
#include "kernels/cuda/common/ptx.cuh"

#define kInfinity (__builtin_bit_cast(float, 0x7F800000U))
#define kLog2E 1.44269504088896341F
#define kLn2 0.693147180559945309F
// exp(kScale * s) = 2^(kScaleLog2 * s). A scale of 0 is replaced by a tiny one, which gives the
// same uniform probabilities and keeps kScaleLog2 * kMaskedScore = -infinity.
#define kScaleLog2 ((kScale == 0.0F ? 1e-30F : kScale) * kLog2E)
// The raw score of an element that does not count: its probability is 0.
#define kMaskedScore (kScaleLog2 > 0.0F ? -kInfinity : kInfinity)

// The raw score, of two, that has the larger exponent.
SPION_DEVICE float larger_score(float a, float b) {
    return kScaleLog2 > 0.0F ? fmaxf(a, b) : fminf(a, b);
}

// Raw scores become those that the softmax sees. Called once for every score, before masks.
template <int kTiles>
SPION_DEVICE void change_scores(float (&)[kTiles][4]) {}

// The same of several row tiles.
template <int kRows, int kTiles>
SPION_DEVICE void change_scores(float (&scores)[kRows][kTiles][4]) {
#pragma unroll
    for (int m = 0; m < kRows; ++m) change_scores(scores[m]);
}

// What change_scores has done to the scores of a tile, as d(changed) / d(raw).
template <int kTiles>
struct ScoreSlopes {
    // From changed scores, before they become probabilities.
    __device__ __forceinline__ void take(const float (&)[kTiles][4]) {}
    // dS / kScale of element i of tile j: P * (dP - delta), times the slope.
    __device__ __forceinline__ float gradient(int, int, float probability,
                                              float gradient_minus_delta) const {
        return gradient_minus_delta * probability;
    }
};

// The probability exp(kScale * score - LSE), where `shift` is probability_shift(LSE); or, in the
// forward pass, the same up to the factor 1 / Z, where `shift` is the row max.
SPION_DEVICE float probability(float score, float shift) {
    return ex2_approx(__fmaf_rn(score, kScaleLog2, -shift));
}

// LSE in base 2, or +infinity for a row without any element: all its probabilities are then 0.
SPION_DEVICE float probability_shift(float lse) {
    return lse == -kInfinity ? kInfinity : lse * kLog2E;
}

#endif
