// Softmax of a step without the maximum of the step. Exponents are taken relative to a base, which
// follows the maximum of a row only where it has to: as long as the probabilities of a step,
// relative to the base of the steps before, stay small, nothing is compared, exchanged between
// lanes or rescaled. Where they do not, the base moves and the step's exponentials are taken again.
// What is returned at the end does not depend on the base but for rounding.
#ifndef SPION_HOPPER_SOFTMAX_CUH
#define SPION_HOPPER_SOFTMAX_CUH

#include "kernels/cuda/common/element.cuh"
#include "kernels/cuda/common/softmax.cuh"

// A lane's sum over a step beyond which the base moves. Every probability is below it, which leaves
// fp16 a factor of 64, and sums of 2^20 of them lose nothing in fp32.
#define kLargestStepSum 1024.0F

// OnlineSoftmax::maximum is the base.
struct BasedSoftmax : OnlineSoftmax {
    using OnlineSoftmax::OnlineSoftmax;

    // scores [16, 8 * kTiles] to probabilities relative to the base, as the left operand of a
    // product, and adds them up to step_sum.
    template <int kTiles>
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
                const float low = ex2_approx(__fmaf_rn(pair[2 * half], kScaleLog2, -maximum[half]));
                const float high =
                    ex2_approx(__fmaf_rn(pair[2 * half + 1], kScaleLog2, -maximum[half]));
                step_sum[half] += low;
                step_sum[half] += high;
                left[step][i] = Element::pack(low, high);
            }
        }
    }

    // Moves the base to the largest score so far.
    template <int kTiles>
    __device__ __forceinline__ void move_base(const float (&scores)[kTiles][4],
                                              float (&rescale)[2]) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float best = scores[0][2 * half];
#pragma unroll
            for (int j = 0; j < kTiles; ++j) {
                best = larger_score(best, scores[j][2 * half]);
                best = larger_score(best, scores[j][2 * half + 1]);
            }
            const float next = fmaxf(maximum[half], quad_larger_score(best) * kScaleLog2);
            rescale[half] = ex2_approx(maximum[half] - next);
            maximum[half] = next;
            sum[half] *= rescale[half];
        }
    }

    // Probabilities of an item's first step. Every row has a column that is not masked, or
    // start_finite() was called: sums of rows without any are then 0 and leave their base there,
    // and the first element of such a row makes a sum infinite.
    template <int kTiles>
    __device__ __forceinline__ void start(const float (&scores)[kTiles][4],
                                          unsigned (&left)[kTiles / 2][4]) {
        float step_sum[2], rescale[2];
        // Pruned elements of score 0 have set a base already. Where steps are long and many, its
        // code is not worth the time to compile it.
        constexpr bool kHasBase = kPrunedZero && kTiles <= 8;
        if constexpr (!kHasBase) move_base(scores, rescale);
        take_exponentials(scores, left, step_sum);
        if (kHasBase && is_large(step_sum)) {
            move_base(scores, rescale);
            take_exponentials(scores, left, step_sum);
        }
        add(step_sum);
    }

    // Whether a base of the warp has to move. Without any base yet, sums are infinite or NaN.
    __device__ __forceinline__ static bool is_large(const float (&step_sum)[2]) {
        return __any_sync(0xFFFFFFFFU, !(step_sum[0] + step_sum[1] <= kLargestStepSum));
    }

    __device__ __forceinline__ void add(const float (&step_sum)[2]) {
        sum[0] += step_sum[0];
        sum[1] += step_sum[1];
    }
};

#endif
