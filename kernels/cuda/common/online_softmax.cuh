// Softmax on accumulator tiles while the keys stream past: the row max so far, the row sum of
// 2^(kScaleLog2 * score - row max), and by how much what was summed before has to be rescaled. Z of
// a row is its row sum at the end, LSE = row max + log Z; neither depends, but for rounding, on
// which upper bound took the part of the row max. There are three ways to move it:
//   OnlineSoftmax    after every step, to the largest score so far
//   StepSumSoftmax   a lagging row max, moved when a lane's sum over a step is large
//   VotedSoftmax     a lagging row max, moved when a score of the warp has outgrown it
// A lagging one moves rarely after the first keys; else nothing is exchanged or rescaled.
// A row whose elements all lie ahead has a row max of -infinity.
#ifndef SPION_ONLINE_SOFTMAX_CUH
#define SPION_ONLINE_SOFTMAX_CUH

#include "kernels/cuda/common/contract.cuh"
#include "kernels/cuda/common/mask.cuh"
#include "kernels/cuda/common/score.cuh"
#include "kernels/cuda/common/tile.cuh"

// A lane's sum over a step beyond which a lagging row max moves, on wgmma. Every probability is
// below it, which leaves fp16 a factor of 64, and sums of 2^20 of them lose nothing in fp32.
#define kLargestStepSum 1024.0F
// The exponent by which a score may outgrow a lagging row max, on warps with tiles of their own.
// Probabilities are then at most 2^kSlack, with the relative error that they have below 1.
#define kSlack 8.0F

// The larger score of the 4 lanes that share a row of an accumulator.
SPION_DEVICE float quad_larger_score(float x) {
    x = larger_score(x, __shfl_xor_sync(0xFFFFFFFFU, x, 1));
    return larger_score(x, __shfl_xor_sync(0xFFFFFFFFU, x, 2));
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

// The raw score with the largest exponent among this lane's columns of row g (0) or g + 8 (1).
template <int kTiles>
SPION_DEVICE float largest_score(const float (&scores)[kTiles][4], int half) {
    float largest = scores[0][2 * half];
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
        largest = larger_score(largest, scores[j][2 * half]);
        largest = larger_score(largest, scores[j][2 * half + 1]);
    }
    return largest;
}

// Natural log of the row's sum of exp(score); -infinity for a row without any element.
SPION_DEVICE float lse_of(float row_max, float row_sum) {
    return row_sum == 0.0F ? -kInfinity : (row_max + lg2_approx(row_sum)) * kLn2;
}

// Rows g (0) and g + 8 (1) of a warp.
struct OnlineSoftmax {
    float row_max[2];  // of kScaleLog2 * score; the same in the 4 lanes of a row
    float row_sum[2];  // of 2^(kScaleLog2 * score - row_max) over this lane's columns

    // Without a value until start() gives it one.
    OnlineSoftmax() = default;

    __device__ __forceinline__ explicit OnlineSoftmax(int pruned) { start(pruned); }

    // `pruned` > 0 elements of score 0 outside the pattern, or none at all.
    __device__ __forceinline__ void start(int pruned) {
        const bool first_lane = threadIdx.x % 4 == 0;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            row_max[half] = pruned > 0 ? 0.0F : -kInfinity;
            row_sum[half] = first_lane ? (float)pruned : 0.0F;
        }
    }

    // The same with a number of pruned elements a row.
    __device__ __forceinline__ void start_rows(const int (&pruned)[2]) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            row_max[half] = pruned[half] > 0 ? 0.0F : -kInfinity;
            row_sum[half] = threadIdx.x % 4 == 0 ? (float)pruned[half] : 0.0F;
        }
    }

    // One score more in every row, of exponent `sink`, base 2.
    __device__ __forceinline__ void add_sink(float sink) {
        if constexpr (kSinks) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                move_row_max(half, fmaxf(row_max[half], sink));
                if (threadIdx.x % 4 == 0) row_sum[half] += ex2_approx(sink - row_max[half]);
            }
        }
    }

    // From here on steps may have rows whose columns are all masked.
    __device__ __forceinline__ void start_finite() {
        constexpr float kLowest = -3.402823466e38F;
        row_max[0] = fmaxf(row_max[0], kLowest);
        row_max[1] = fmaxf(row_max[1], kLowest);
    }

    // Moves the row max of row g (0) or g + 8 (1) to `next`, which is not below it. Returns how
    // many times what was summed before counts from here on.
    __device__ __forceinline__ float move_row_max(int half, float next) {
        const float rescale = ex2_approx(row_max[half] - next);
        row_max[half] = next;
        row_sum[half] *= rescale;
        return rescale;
    }

    // Turns scores [16, 8 * kTiles] into probabilities up to the factor 1 / Z, and rescales `acc`,
    // the sum so far. Every row has a column that is not masked, or its row max is finite.
    template <int kTiles, int kAccTiles>
    __device__ __forceinline__ void update(float (&scores)[kTiles][4], float (&acc)[kAccTiles][4]) {
        float rescale[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const float largest = quad_larger_score(largest_score(scores, half)) * kScaleLog2;
            const float next = fmaxf(row_max[half], largest);
            rescale[half] = move_row_max(half, next);
#pragma unroll
            for (int j = 0; j < kTiles; ++j) {
#pragma unroll
                for (int i = 2 * half; i < 2 * half + 2; ++i) {
                    scores[j][i] = probability(scores[j][i], next);
                    row_sum[half] += scores[j][i];
                }
            }
        }
        scale_rows(acc, rescale);
    }

    // Adds up the lanes; call once, at the end. Z of a row is then the same in its 4 lanes.
    __device__ __forceinline__ void finish() {
        row_sum[0] = quad_sum(row_sum[0]);
        row_sum[1] = quad_sum(row_sum[1]);
    }

    // 1 / Z, or 0 for a row without any element.
    __device__ __forceinline__ float reciprocal(int half) const {
        return row_sum[half] == 0.0F ? 0.0F : 1.0F / row_sum[half];
    }

    // Natural log of the row's sum of exp(score); -infinity for a row without any element.
    __device__ __forceinline__ float lse(int half) const {
        return lse_of(row_max[half], row_sum[half]);
    }
};

// With a lagging row max that moves when a lane's sum over a step is large: the maximum of a step
// is not even taken. Probabilities leave as the left operand of a product, so that scores stay for
// a second round of exponentials.
struct StepSumSoftmax : OnlineSoftmax {
    using OnlineSoftmax::OnlineSoftmax;

    // scores [16, 8 * kTiles] to probabilities relative to the row max, as the left operand of a
    // product, and adds them up to step_sum.
    template <int kTiles, typename E = Element>
    __device__ __forceinline__ void take_exponentials(const float (&scores)[kTiles][4],
                                                      unsigned (&left)[kTiles / 2][4],
                                                      float (&step_sum)[2]) const {
        step_sum[0] = step_sum[1] = 0.0F;
#pragma unroll
        for (int step = 0; step < kTiles / 2; ++step) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float(&pair)[4] = scores[2 * step + i / 2];
                const int half = i % 2;
                const float low = probability(pair[2 * half], row_max[half]);
                const float high = probability(pair[2 * half + 1], row_max[half]);
                step_sum[half] += low;
                step_sum[half] += high;
                left[step][i] = E::pack(low, high);  // E: an fp32 element has none
            }
        }
    }

    // Moves the row max to the largest score so far.
    template <int kTiles>
    __device__ __forceinline__ void follow(const float (&scores)[kTiles][4], float (&rescale)[2]) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const float largest = quad_larger_score(largest_score(scores, half)) * kScaleLog2;
            rescale[half] = move_row_max(half, fmaxf(row_max[half], largest));
        }
    }

    // Probabilities of an item's first step. Every row has a column that is not masked, or
    // start_finite() was called: sums of rows without any are then 0 and leave their row max there,
    // and the first element of such a row makes a sum infinite.
    template <int kTiles>
    __device__ __forceinline__ void first_step(const float (&scores)[kTiles][4],
                                               unsigned (&left)[kTiles / 2][4]) {
        float step_sum[2], rescale[2];
        // Pruned elements of score 0 have set a row max already. Where steps are long and many, its
        // code is not worth the time to compile it.
        constexpr bool kHasRowMax = kPrunedCount && kTiles <= 8;
        if constexpr (!kHasRowMax) follow(scores, rescale);
        take_exponentials(scores, left, step_sum);
        if (kHasRowMax && is_large(step_sum)) {
            follow(scores, rescale);
            take_exponentials(scores, left, step_sum);
        }
        add(step_sum);
    }

    // Whether a row max of the warp has to move. Without any yet, sums are infinite or NaN.
    __device__ __forceinline__ static bool is_large(const float (&step_sum)[2]) {
        return __any_sync(0xFFFFFFFFU, !(step_sum[0] + step_sum[1] <= kLargestStepSum));
    }

    __device__ __forceinline__ void add(const float (&step_sum)[2]) {
        row_sum[0] += step_sum[0];
        row_sum[1] += step_sum[1];
    }
};

// With a lagging row max of kRows row tiles: it moves when a score of the warp has outgrown it by
// 2^kSlack, which a vote finds without exchanging maxima. Of row tile m, rows g (0) and g + 8 (1).
template <int kRows>
struct VotedSoftmax {
    float row_max[kRows][2];  // as in OnlineSoftmax
    float row_sum[kRows][2];

    __device__ __forceinline__ void start(int pruned) {
#pragma unroll
        for (int m = 0; m < kRows; ++m) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                row_max[m][half] = pruned > 0 ? 0.0F : -kInfinity;
                row_sum[m][half] = lane_index() % 4 == 0 ? (float)pruned : 0.0F;
            }
        }
    }

    // The same with a number of pruned elements a row of row tile `m`.
    __device__ __forceinline__ void start_rows(int m, const int (&pruned)[2]) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            row_max[m][half] = pruned[half] > 0 ? 0.0F : -kInfinity;
            row_sum[m][half] = lane_index() % 4 == 0 ? (float)pruned[half] : 0.0F;
        }
    }

    // One score more in every row, of exponent `sink`, base 2.
    __device__ __forceinline__ void add_sink(float sink) {
        if constexpr (kSinks) {
#pragma unroll
            for (int m = 0; m < kRows; ++m) {
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const float next = fmaxf(row_max[m][half], sink);
                    row_sum[m][half] *= ex2_approx(row_max[m][half] - next);
                    if (lane_index() % 4 == 0) row_sum[m][half] += ex2_approx(sink - next);
                    row_max[m][half] = next;
                }
            }
        }
    }

    // From here on steps may have rows whose columns are all masked.
    __device__ __forceinline__ void start_finite() {
        constexpr float kLowest = -3.402823466e38F;
#pragma unroll
        for (int m = 0; m < kRows; ++m) {
            row_max[m][0] = fmaxf(row_max[m][0], kLowest);
            row_max[m][1] = fmaxf(row_max[m][1], kLowest);
        }
    }

    // Moves row maxima to the largest exponents so far, and `acc`, the sums so far, with them.
    // largest: of this lane's columns.
    template <int kAccTiles>
    __device__ __forceinline__ void follow(const float (&largest)[kRows][2],
                                           float (&acc)[kRows][kAccTiles][4]) {
#pragma unroll
        for (int m = 0; m < kRows; ++m) {
            float rescale[2];
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float next = quad_max(fmaxf(largest[m][half], row_max[m][half]));
                rescale[half] = ex2_approx(row_max[m][half] - next);
                row_max[m][half] = next;
                row_sum[m][half] *= rescale[half];
            }
            scale_rows(acc[m], rescale);
        }
    }

    // Turns scores into probabilities up to the factor 1 / Z, and rescales `acc` where the row max
    // moves. Every row has a column that is not masked.
    template <int kTiles, int kAccTiles>
    __device__ __forceinline__ void update(float (&scores)[kRows][kTiles][4],
                                           float (&acc)[kRows][kAccTiles][4]) {
        float largest[kRows][2];
        bool outgrown = false;
#pragma unroll
        for (int m = 0; m < kRows; ++m) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                largest[m][half] = largest_score(scores[m], half) * kScaleLog2;
                outgrown |= largest[m][half] > row_max[m][half] + kSlack;
            }
        }
        if (__any_sync(0xFFFFFFFFU, outgrown)) follow(largest, acc);
#pragma unroll
        for (int m = 0; m < kRows; ++m) {
#pragma unroll
            for (int j = 0; j < kTiles; ++j) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    scores[m][j][i] = probability(scores[m][j][i], row_max[m][i / 2]);
                    row_sum[m][i / 2] += scores[m][j][i];
                }
            }
        }
    }

    // Adds up the lanes; call once, at the end.
    __device__ __forceinline__ void finish() {
#pragma unroll
        for (int m = 0; m < kRows; ++m) {
            row_sum[m][0] = quad_sum(row_sum[m][0]);
            row_sum[m][1] = quad_sum(row_sum[m][1]);
        }
    }

    __device__ __forceinline__ float lse(int m, int half) const {
        return lse_of(row_max[m][half], row_sum[m][half]);
    }
};

#endif
