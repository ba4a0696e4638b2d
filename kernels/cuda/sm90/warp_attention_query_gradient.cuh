// dQ and delta of one query tile of m = kStationaryRows rows, by one warp, on sm_90a.
//   delta [m]        = rowsum(dO * O)
//   S [m, n]         = Q [m, D] * K [n, D]^T        n = kColumns keys at a time
//   P [m, n]         = exp(kScale * S - LSE)
//   dS [m, n]        = P * (dO [m, D] * V [n, D]^T - delta)
//   dQ [m, D]       += dS [m, n] * K [n, D]         at the end times kScale
#include "kernels/cuda/sm90/warp_contract.cuh"

#define SPION_BODY
enum : int { kStationaryTensors = 3 };            // Q, dO, O; streamed: K, V
enum : bool { kStationaryHasStatistics = true };  // LSE
enum : bool { kStageHasStatistics = false };
enum : bool { kStationaryStaysInUse = kHeldOperands < 2 };
enum : bool { kEmptyHasTiles = true };  // delta is wanted of every row
#include "kernels/cuda/common/online_softmax.cuh"
#include "kernels/cuda/sm90/warp_pipeline.cuh"

struct Consumer {
    Operand<(kHeldOperands > 0)> query;
    Operand<(kHeldOperands > 1)> output_gradient;
    Result query_gradient;
    float shift[kRowTiles][2], delta[kRowTiles][2];  // of rows 16 m + g and 16 m + g + 8
    StepElements<false> elements;                    // from the step that comes next on
    BiasGradient of_bias[kRowTiles];

    __device__ __forceinline__ void begin(const SpionAttentionArguments& args,
                                          const ConsumerMemory& memory, const ItemPlan& plan) {
        query.take(memory.stationary_tile(0));
        output_gradient.take(memory.stationary_tile(1));
        Operand<false> output;
        output.take(memory.stationary_tile(2));
        float sum[kRowTiles][2] = {};
#pragma unroll
        for (int step = 0; step < kDepthSteps; ++step) {
            unsigned a[kRowTiles][4], b[kRowTiles][4];
            output_gradient.get(a, step);
            output.get(b, step);
#pragma unroll
            for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    sum[m][i % 2] = dot_word<Element>(a[m][i], b[m][i], sum[m][i % 2]);
                }
            }
        }
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                delta[m][half] = quad_sum(sum[m][half]);
                const int row = 16 * m + 8 * half + lane_index() / 4;
                const float lse = load_shared_float(memory.stationary_statistics() + row * 4);
                // Rows from L on get the shift that makes every probability 0.
                const bool inside = plan.first_row + row < query_limit(args, plan.batch());
                shift[m][half] = inside ? probability_shift(lse) : kInfinity;
                if (lane_index() % 4 == 0 && inside) {
                    args.delta[(long long)plan.batch_head * kLength + plan.first_row + row] =
                        delta[m][half];
                }
            }
        }
        set_zero(query_gradient);
        elements = step_elements<false>(args, plan);
        start_bias(args, plan);
    }

    __device__ __forceinline__ void start_bias(const SpionAttentionArguments& args,
                                               const ItemPlan& plan) {
        if constexpr (kRelativeBias > 0) {
#pragma unroll
            for (int m = 0; m < kRowTiles; ++m) {
                of_bias[m] =
                    bias_gradient(args, plan.batch(), plan.head(), plan.first_row + 16 * m);
                of_bias[m].start();
            }
        }
    }

    __device__ __forceinline__ void finish_bias() {
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) of_bias[m].finish();
    }

    __device__ __forceinline__ void walk_again(const SpionAttentionArguments& args,
                                               const ItemPlan& plan, int) {
        elements = step_elements<false>(args, plan);
    }

    __device__ __forceinline__ void add(unsigned key_tile, unsigned, int valid) {
        const unsigned value_tile = key_tile + kTileBytes;
        if (may_have_padded_rows<kStreamedRows>(valid)) {
            zero_streamed_rows(key_tile, valid);
            zero_streamed_rows(value_tile, valid);
        }
        // Two lanes draw for 32 columns together, where 16 are multiplied at once.
        KeptElements<false, kStreamedRows / 8> of_step[kRowTiles];
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
            of_step[m] = elements.of_row_tile(m).template kept<kStreamedRows / 8>(0);
        }
#pragma unroll 1
        for (int column = 0; column < kStreamedRows && column < valid; column += kColumns) {
            Scores scores, gradient;
            ScoreSlopes<kScoreTiles> slopes[kRowTiles];
            KeptElements<false, kScoreTiles> kept[kRowTiles];
            set_zero(scores);
            add_scores(scores, query, key_tile, column);
#pragma unroll
            for (int m = 0; m < kRowTiles; ++m) {
                kept[m] = of_step[m].template part<kScoreTiles>(column);
#pragma unroll
                for (int j = 0; j < kScoreTiles; ++j) {
#pragma unroll
                    for (int i = 0; i < 4; ++i) gradient[m][j][i] = kept[m].start(delta[m][i / 2]);
                }
                change_scores(scores[m]);
                slopes[m].take(scores[m]);
                elements.of_row_tile(m).add_position_terms(scores[m], slopes[m], column);
                mask_scores(scores[m], ScoreMask<>{valid - column});
                elements.of_row_tile(m).drop(scores[m], column, kMaskedScore);
            }
            add_scores(gradient, output_gradient, value_tile, column);
#pragma unroll
            for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
                for (int j = 0; j < kScoreTiles; ++j) {
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        const float p = probability(scores[m][j][i], shift[m][i / 2]);
                        const float difference =
                            kept[m].finish(j, i, gradient[m][j][i], delta[m][i / 2]);
                        gradient[m][j][i] = slopes[m].gradient(j, i, p, difference);
                        // dS before a cap's slope, in place of the score.
                        if constexpr (kRelativeBias > 0) scores[m][j][i] = difference * p;
                    }
                }
                if constexpr (kRelativeBias > 0) {
                    elements.of_row_tile(m).add_bias_gradient(of_bias[m], scores[m], column);
                }
            }
            add_product(query_gradient, gradient, key_tile, column);
        }
        elements = elements.at(1);
    }

    __device__ __forceinline__ void finish(const SpionAttentionArguments& args,
                                           const ItemPlan& plan, unsigned staging) {
        finish_bias();
        float factor[kRowTiles][2];
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) factor[m][0] = factor[m][1] = kScale;
        store_result(staging, query_gradient, factor,
                     rows_of(args, args.d_q, plan.batch(), plan.head()), plan.first_row,
                     query_limit(args, plan.batch()));
    }

    __device__ __forceinline__ void finish_empty(const SpionAttentionArguments& args,
                                                 const ItemPlan& plan) {
        start_bias(args, plan);
        finish_bias();
        store_zeros(rows_of(args, args.d_q, plan.batch(), plan.head()), plan.first_row,
                    query_limit(args, plan.batch()));
    }
};

extern "C" __global__ void __launch_bounds__(kBlockThreads, kResidentBlocks)
    attention_query_gradient(const __grid_constant__ SpionSm90Arguments args) {
    run_items<Consumer, true>(args);
}
