// O and LSE of one query tile of m = kStationaryRows rows, by one warp, on sm_90a.
//   S [m, n]   = Q [m, D] * K [n, D]^T          n = kColumns keys at a time
//   P [m, n]   = 2^(S * kScaleLog2 - r)         r: the row's reference, Z its sum
//   O [m, D]  += P [m, n] * V [n, D]            at the end O / Z
// The reference is a maximum that lags: it moves, and O and Z with it, when a score has outgrown it
// by 2^kSlack, which is rare after the first keys. P is then at most 2^kSlack, with the relative
// error that it has below 1.
enum : int { kStationaryTensors = 1 };  // Q; streamed: K, V
enum : bool { kSlotHasStatistics = false };
enum : bool { kStageHasStatistics = false };
enum : bool { kSlotStaysInUse = kHeldOperands < 1 };
enum : bool { kEmptyHasTiles = false };
#include "kernels/cuda/common/softmax.cuh"
#include "kernels/cuda/sm90/warp_pipeline.cuh"

#define kSlack 8.0F

struct Consumer {
    Operand<(kHeldOperands > 0)> query;
    Result out;
    float reference[kRowTiles][2];  // of kScaleLog2 * score; the same in the 4 lanes of a row
    float sum[kRowTiles][2];        // over this lane's columns

    __device__ __forceinline__ void reset(const ItemPlan& plan) {
        const int pruned = kPrunedZero ? kLength - plan.elements : 0;
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                reference[m][half] = pruned > 0 ? 0.0F : -kInfinity;
                sum[m][half] = lane_index() % 4 == 0 ? (float)pruned : 0.0F;
            }
        }
    }

    __device__ __forceinline__ void begin(const SpionAttentionArguments&,
                                          const ConsumerMemory& memory, const ItemPlan& plan) {
        query.take(memory.slot_tile(0));
        reset(plan);
        set_zero(out);
    }

    // Every row has a column that is not masked.
    __device__ __forceinline__ void probabilities(Scores& scores) {
        float best[kRowTiles][2];
        bool outgrown = false;
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float larger = scores[m][0][2 * half];
#pragma unroll
                for (int j = 0; j < kScoreTiles; ++j) {
                    larger = larger_score(larger, scores[m][j][2 * half]);
                    larger = larger_score(larger, scores[m][j][2 * half + 1]);
                }
                best[m][half] = larger * kScaleLog2;
                outgrown |= best[m][half] > reference[m][half] + kSlack;
            }
        }
        if (__any_sync(0xFFFFFFFFU, outgrown)) follow(best);
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
            for (int j = 0; j < kScoreTiles; ++j) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    scores[m][j][i] =
                        ex2_approx(__fmaf_rn(scores[m][j][i], kScaleLog2, -reference[m][i / 2]));
                    sum[m][i / 2] += scores[m][j][i];
                }
            }
        }
    }

    // Moves the references to the largest exponents so far. best: of this lane's columns.
    __device__ __forceinline__ void follow(const float (&best)[kRowTiles][2]) {
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
            float rescale[2];
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float next = fmaxf(best[m][half], reference[m][half]);
                next = fmaxf(next, __shfl_xor_sync(0xFFFFFFFFU, next, 1));
                next = fmaxf(next, __shfl_xor_sync(0xFFFFFFFFU, next, 2));
                rescale[half] = ex2_approx(reference[m][half] - next);
                reference[m][half] = next;
                sum[m][half] *= rescale[half];
            }
            scale_rows(out[m], rescale);
        }
    }

    __device__ __forceinline__ void add(unsigned key_tile, unsigned, int valid) {
        const unsigned value_tile = key_tile + kTileBytes;
        if (kKeyPadding && valid < kStreamedRows) zero_streamed_rows(value_tile, valid);
#pragma unroll 1
        for (int column = 0; column < kStreamedRows && column < valid; column += kColumns) {
            Scores scores;
            set_zero(scores);
            add_scores(scores, query, key_tile, column);
            if (valid - column < kColumns) {
#pragma unroll
                for (int m = 0; m < kRowTiles; ++m) mask_columns(scores[m], valid - column);
            }
            probabilities(scores);
            add_product(out, scores, value_tile, column);
        }
    }

    __device__ __forceinline__ void store_lse(const SpionAttentionArguments& args,
                                              const ItemPlan& plan) {
        float* const lse = args.lse + (long long)plan.pair * kLength;
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int row = plan.first_row + 16 * m + 8 * half + lane_index() / 4;
                const float value = sum[m][half] == 0.0F
                                        ? -kInfinity
                                        : (reference[m][half] + lg2_approx(sum[m][half])) * kLn2;
                if (lane_index() % 4 == 0 && row < kLength) lse[row] = value;
            }
        }
    }

    __device__ __forceinline__ void add_up_lanes() {
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
            sum[m][0] = quad_sum(sum[m][0]);
            sum[m][1] = quad_sum(sum[m][1]);
        }
    }

    __device__ __forceinline__ void finish(const SpionAttentionArguments& args,
                                           const ItemPlan& plan, unsigned staging) {
        add_up_lanes();
        float factor[kRowTiles][2];
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
            factor[m][0] = rcp_approx(sum[m][0]);
            factor[m][1] = rcp_approx(sum[m][1]);
        }
        store_result(staging, out, factor, rows_of(args.o, plan.batch(), plan.head()),
                     plan.first_row);
        store_lse(args, plan);
    }

    __device__ __forceinline__ void finish_empty(const SpionAttentionArguments& args,
                                                 const ItemPlan& plan) {
        reset(plan);
        add_up_lanes();
        store_zeros(rows_of(args.o, plan.batch(), plan.head()), plan.first_row);
        store_lse(args, plan);
    }
};

extern "C" __global__ void __launch_bounds__(kBlockThreads, kResidentBlocks)
    attention_forward(const __grid_constant__ SpionHopperArguments args) {
    run_items<Consumer, true>(args);
}
