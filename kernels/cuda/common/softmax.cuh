// Softmax on accumulator tiles. Scores are the raw products q . k; exponents are base 2, with
// kScale * log2(e) folded into one multiply-add.
#ifndef SPION_SOFTMAX_CUH
#define SPION_SOFTMAX_CUH

#include "kernels/cuda/common/ptx.cuh"

#define kInfinity (__builtin_bit_cast(float, 0x7F800000U))
#define kLog2E 1.44269504088896341F
#define kLn2 0.693147180559945309F
// exp(kScale * s) = 2^(kScaleLog2 * s). A scale of 0 is replaced by a tiny one, which gives the
// same uniform probabilities and keeps kScaleLog2 * kMaskedScore = -infinity.
#define kScaleLog2 ((kScale == 0.0F ? 1e-30F : kScale) * kLog2E)
#define kMaskedScore (kScaleLog2 > 0.0F ? -kInfinity : kInfinity)

// Of two raw scores the one with the larger exponent.
SPION_DEVICE float larger_score(float a, float b) {
    return kScaleLog2 > 0.0F ? fmaxf(a, b) : fminf(a, b);
}

// Reductions over the 4 lanes that share a row of an accumulator.
SPION_DEVICE float quad_sum(float x) {
    x += __shfl_xor_sync(0xFFFFFFFFU, x, 1);
    return x + __shfl_xor_sync(0xFFFFFFFFU, x, 2);
}

SPION_DEVICE float quad_larger_score(float x) {
    x = larger_score(x, __shfl_xor_sync(0xFFFFFFFFU, x, 1));
    return larger_score(x, __shfl_xor_sync(0xFFFFFFFFU, x, 2));
}

// Scores in columns from `valid` on become those of probability 0.
template <int kTiles>
SPION_DEVICE void mask_columns(float (&scores)[kTiles][4], int valid) {
    const int t = (int)(threadIdx.x % 4);
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (8 * j + 2 * t + i % 2 >= valid) scores[j][i] = kMaskedScore;
        }
    }
}

// Rows g and g + 8 of a warp's accumulator times factor[0] and factor[1].
template <int kTiles>
SPION_DEVICE void scale_rows(float (&acc)[kTiles][4], const float (&factor)[2]) {
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) acc[j][i] *= factor[i / 2];
    }
}

// What a row's LSE is subtracted as: LSE in base 2, or +infinity for a row without any element, so
// that 2^(kScaleLog2 * s - shift) is the probability in both cases.
SPION_DEVICE float probability_shift(float lse) {
    return lse == -kInfinity ? kInfinity : lse * kLog2E;
}

// The running maximum and sum of rows g (0) and g + 8 (1) of a warp.
struct OnlineSoftmax {
    float maximum[2];  // of kScaleLog2 * score; the same in the 4 lanes of a row
    float sum[2];      // of 2^(kScaleLog2 * score - maximum) over this lane's columns

    // `pruned` > 0 elements of score 0 outside the pattern, or none at all.
    __device__ __forceinline__ explicit OnlineSoftmax(int pruned) {
        const bool first_lane = threadIdx.x % 4 == 0;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            maximum[half] = pruned > 0 ? 0.0F : -kInfinity;
            sum[half] = first_lane ? (float)pruned : 0.0F;
        }
    }

    // From here on update_scores() may be given rows whose columns are all masked.
    __device__ __forceinline__ void start_finite() {
        constexpr float kLowest = -3.402823466e38F;
        maximum[0] = fmaxf(maximum[0], kLowest);
        maximum[1] = fmaxf(maximum[1], kLowest);
    }

    // Turns scores [16, 8 * kTiles] into probabilities up to the factor 1 / Z. What was summed with
    // them before counts `rescale` times from here on. Every row has a column that is not masked,
    // or the maximum is finite.
    template <int kTiles>
    __device__ __forceinline__ void update_scores(float (&scores)[kTiles][4], float (&rescale)[2]) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float best = scores[0][2 * half];
#pragma unroll
            for (int j = 0; j < kTiles; ++j) {
                best = larger_score(best, scores[j][2 * half]);
                best = larger_score(best, scores[j][2 * half + 1]);
            }
            best = quad_larger_score(best) * kScaleLog2;
            const float next = fmaxf(maximum[half], best);
            rescale[half] = ex2_approx(maximum[half] - next);
            maximum[half] = next;
            sum[half] *= rescale[half];
#pragma unroll
            for (int j = 0; j < kTiles; ++j) {
#pragma unroll
                for (int i = 2 * half; i < 2 * half + 2; ++i) {
                    scores[j][i] = ex2_approx(__fmaf_rn(scores[j][i], kScaleLog2, -next));
                    sum[half] += scores[j][i];
                }
            }
        }
    }

    // The same, and rescales `acc`, the sum so far.
    template <int kTiles, int kAccTiles>
    __device__ __forceinline__ void update(float (&scores)[kTiles][4], float (&acc)[kAccTiles][4]) {
        float rescale[2];
        update_scores(scores, rescale);
        scale_rows(acc, rescale);
    }

    // Adds up the lanes; call once, at the end. Z of a row is then the same in its 4 lanes.
    __device__ __forceinline__ void finish() {
        sum[0] = quad_sum(sum[0]);
        sum[1] = quad_sum(sum[1]);
    }

    // 1 / Z, or 0 for a row without any element.
    __device__ __forceinline__ float reciprocal(int half) const {
        return sum[half] == 0.0F ? 0.0F : 1.0F / sum[half];
    }

    // Natural log of the row's sum of exp(score); -infinity for a row without any element.
    __device__ __forceinline__ float lse(int half) const {
        return sum[half] == 0.0F ? -kInfinity : (maximum[half] + lg2_approx(sum[half])) * kLn2;
    }
};

#endif
