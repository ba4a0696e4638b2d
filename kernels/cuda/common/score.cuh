// What happens to a score, for all CUDA bodies. A score is a raw product q . k; exponents are base
// 2, with kScale * log2(e) folded into one multiply-add. A cap of scores is change_scores and
// ScoreSlopes; what depends on positions comes afterwards (StepElements::add_position_terms): a
// user's expression (score_expression.cuh), the slopes of ALiBi here, then a bias (relative_bias.cuh).
#ifndef SPION_SCORE_CUH
#define SPION_SCORE_CUH

#include "kernels/attention_arguments.h"
#include "kernels/cuda/common/contract.cuh"
#include "kernels/cuda/common/ptx.cuh"
#include "kernels/cuda/common/relative_bias.cuh"
#include "kernels/cuda/common/tile.cuh"

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

enum : bool { kCaps = kSoftcap > 0.0F, kSlopes = kAlibi, kSinks = kSink };
#ifdef SPION_SCORE_EXPRESSION
enum : bool { kExpression = true };
#else
enum : bool { kExpression = false };
#endif
// From a raw score to the argument of the cap's tanh.
#define kOfCap (kScale / (kCaps ? kSoftcap : 1.0F))

// tanh.approx is as good as a 16-bit element.
SPION_DEVICE float capped(float x) {
    if constexpr (Element::kBytes == 2) return tanh_approx(x);
    return tanhf(x);
}

// Raw scores are capped, where the operation caps them. Called once for every score, before masks.
template <int kTiles>
SPION_DEVICE void change_scores(float (&scores)[kTiles][4]) {
    if constexpr (kCaps) {
#pragma unroll
        for (int j = 0; j < kTiles; ++j) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                scores[j][i] = capped(scores[j][i] * kOfCap) * (1.0F / kOfCap);
            }
        }
    }
}

// The same of several row tiles.
template <int kRows, int kTiles>
SPION_DEVICE void change_scores(float (&scores)[kRows][kTiles][4]) {
#pragma unroll
    for (int m = 0; m < kRows; ++m) change_scores(scores[m]);
}

// What happened to the scores of a tile, as d(changed) / d(raw): nothing, a cap, or an expression.
enum { kSlopesAre1, kSlopesOfCap, kSlopesOfExpression };
template <int kTiles, int kKind = kExpression ? kSlopesOfExpression
                                  : kCaps     ? kSlopesOfCap
                                              : kSlopesAre1>
struct ScoreSlopes {
    float slopes[kTiles][4];

    // From changed scores, before they become probabilities.
    __device__ __forceinline__ void take(const float (&scores)[kTiles][4]) {
#pragma unroll
        for (int j = 0; j < kTiles; ++j) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float x = scores[j][i] * kOfCap;
                slopes[j][i] = __fmaf_rn(-x, x, 1.0F);
            }
        }
    }
    // dS / kScale of element i of tile j: P * (dP - delta), times the slope.
    __device__ __forceinline__ float gradient(int j, int i, float probability,
                                              float gradient_minus_delta) const {
        return gradient_minus_delta * probability * slopes[j][i];
    }
};

template <int kTiles>
struct ScoreSlopes<kTiles, kSlopesOfExpression> {
    float slopes[kTiles][4];  // set where the scores are changed, at their positions

    __device__ __forceinline__ void take(const float (&)[kTiles][4]) {}
    __device__ __forceinline__ void set(int j, int i, float slope) { slopes[j][i] = slope; }
    // An expression need not have a slope where its score does not count.
    __device__ __forceinline__ float gradient(int j, int i, float probability,
                                              float gradient_minus_delta) const {
        return probability > 0.0F ? gradient_minus_delta * probability * slopes[j][i] : 0.0F;
    }
};

template <int kTiles>
struct ScoreSlopes<kTiles, kSlopesAre1> {
    __device__ __forceinline__ void take(const float (&)[kTiles][4]) {}
    __device__ __forceinline__ float gradient(int, int, float probability,
                                              float gradient_minus_delta) const {
        return gradient_minus_delta * probability;
    }
};

// What the launch says about a query head's scores.
struct HeadScores {
    float slope;      // of a raw score, with kSlopes
    int head, batch;  // with kExpression
    BiasTable bias;

    // Of scores [16, 8 * kTiles] minus slope * |row - column| more, and plus the bias. warp_row: the
    // first row; position_of(n): of the first of columns [16 n, + 16), kTogether of which lie side by
    // side in memory.
    template <bool kRowsAreKeys, int kTogether = 16, int kTiles, typename PositionOf>
    __device__ __forceinline__ void add_position_terms(float (&scores)[kTiles][4], int warp_row,
                                                       const PositionOf& position_of) const {
        if constexpr (kSlopes) {
            const int row = warp_row + lane_index() / 4;
#pragma unroll
            for (int n = 0; n < kTiles / 2; ++n) {
                const float apart = (float)(position_of(n) + lane_index() % 4 * 2 - row);
#pragma unroll
                for (int j = 0; j < 2; ++j) {
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        const float further = (float)(8 * j + i % 2 - i / 2 * 8);
                        scores[2 * n + j][i] =
                            __fmaf_rn(-slope, fabsf(apart + further), scores[2 * n + j][i]);
                    }
                }
            }
        }
        bias.add<kRowsAreKeys, kTogether>(scores, warp_row, position_of);
    }
};

SPION_DEVICE HeadScores head_scores(const SpionAttentionArguments& args, int batch,
                                    int query_head) {
    HeadScores head = {};
    if constexpr (kExpression) {
        head.head = query_head;
        head.batch = batch;
    }
    if constexpr (kSlopes) head.slope = args.alibi_slopes[query_head] * (1.0F / kScale);
    head.bias = bias_table(args, query_head);
    return head;
}

// The exponent of a query head's sink, base 2.
SPION_DEVICE float sink_exponent(const SpionAttentionArguments& args, int query_head) {
    if constexpr (!kSinks) return 0.0F;
    return args.sinks[query_head] * kLog2E;
}

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
