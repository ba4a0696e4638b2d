// O and LSE of one query tile of m = kStationaryRows rows, by one warp, on sm_90a.
//   S [m, n]   = Q [m, D] * K [n, D]^T          n = kColumns keys at a time
//   P [m, n]   = 2^(S * kScaleLog2 - m)         m, Z: lagging row max and row sum (VotedSoftmax)
//   O [m, D]  += P [m, n] * V [n, D]            rescaled when m moves; at the end O / Z
#include "kernels/cuda/sm90/warp_contract.cuh"

#define SPION_BODY
enum : int { kStationaryTensors = 1 };  // Q; streamed: K, V
enum : bool { kStationaryHasStatistics = false };
enum : bool { kStageHasStatistics = false };
enum : bool { kStationaryStaysInUse = kHeldOperands < 1 };
enum : bool { kEmptyHasTiles = false };
#include "kernels/cuda/common/online_softmax.cuh"
#include "kernels/cuda/common/packed_rows.cuh"
#include "kernels/cuda/sm90/warp_pipeline.cuh"

struct Consumer {
    Operand<(kHeldOperands > 0)> query;
    Result out;
    VotedSoftmax<kRowTiles> softmax;
    StepElements<false> elements;  // from the step that comes next on

    __device__ __forceinline__ void reset(const SpionAttentionArguments& args,
                                          const ItemPlan& plan) {
        softmax.start(pruned_elements(kKeyLength, plan.elements));
        elements = step_elements<false>(args, plan);
        if constexpr (kElementsMasked) {
#pragma unroll
            for (int m = 0; m < kRowTiles; ++m) {
                int pruned[2] = {0, 0};
                if (kPrunedCount) pruned_of_rows(pruned, args, elements.of_row_tile(m));
                softmax.start_rows(m, pruned);
            }
            softmax.start_finite();
        }
        softmax.add_sink(sink_exponent(args, plan.head()));
    }

    __device__ __forceinline__ void begin(const SpionAttentionArguments& args,
                                          const ConsumerMemory& memory, const ItemPlan& plan) {
        query.take(memory.stationary_tile(0));
        reset(args, plan);
        set_zero(out);
    }

    __device__ __forceinline__ void walk_again(const SpionAttentionArguments& args,
                                               const ItemPlan& plan, int) {
        elements = step_elements<false>(args, plan);
    }

    __device__ __forceinline__ void add(unsigned key_tile, unsigned, int valid) {
        const unsigned value_tile = key_tile + kTileBytes;
        if (may_have_padded_rows<kStreamedRows>(valid)) zero_streamed_rows(value_tile, valid);
#pragma unroll 1
        for (int column = 0; column < kStreamedRows && column < valid; column += kColumns) {
            Scores scores;
            set_zero(scores);
            add_scores(scores, query, key_tile, column);
            change_scores(scores);
#pragma unroll
            for (int m = 0; m < kRowTiles; ++m) {
                elements.of_row_tile(m).add_position_terms(scores[m], column);
            }
            mask_scores(scores, ScoreMask<>{valid - column});
#pragma unroll
            for (int m = 0; m < kRowTiles; ++m) {
                elements.of_row_tile(m).drop(scores[m], column, kMaskedScore);
            }
            softmax.update(scores, out);
#pragma unroll
            for (int m = 0; m < kRowTiles; ++m) {
                elements.of_row_tile(m).template kept<kScoreTiles>(column).drop(scores[m]);
            }
            add_product(out, scores, value_tile, column);
        }
        elements = elements.at(1);
    }

    __device__ __forceinline__ void store_lse(const SpionAttentionArguments& args,
                                              const ItemPlan& plan) {
        float* const lse = args.lse + (long long)plan.batch_head * kLength;
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int row = plan.first_row + 16 * m + 8 * half + lane_index() / 4;
                const float value = softmax.lse(m, half);
                if (lane_index() % 4 == 0 && row < query_limit(args, plan.batch())) {
                    lse[row] = value;
                }
            }
        }
    }

    __device__ __forceinline__ void add_up_lanes() {
        softmax.finish();
    }

    __device__ __forceinline__ void finish(const SpionAttentionArguments& args,
                                           const ItemPlan& plan, unsigned staging) {
        add_up_lanes();
        float factor[kRowTiles][2];
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                factor[m][half] = rcp_approx(softmax.row_sum[m][half]) * kept_factor(args);
                // Under a mask a row may have nothing of what its tile has.
                if (kElementsMasked && softmax.row_sum[m][half] == 0.0F) factor[m][half] = 0.0F;
            }
        }
        store_result(staging, out, factor, value_rows_of(args, args.o, plan.batch(), plan.head()),
                     plan.first_row, query_limit(args, plan.batch()));
        store_lse(args, plan);
    }

    __device__ __forceinline__ void finish_empty(const SpionAttentionArguments& args,
                                                 const ItemPlan& plan) {
        reset(args, plan);
        add_up_lanes();
        store_zeros(value_rows_of(args, args.o, plan.batch(), plan.head()), plan.first_row,
                    query_limit(args, plan.batch()));
        store_lse(args, plan);
    }
};

extern "C" __global__ void __launch_bounds__(kBlockThreads, kResidentBlocks)
    attention_forward(const __grid_constant__ SpionSm90Arguments args) {
    run_items<Consumer, true>(args);
}
