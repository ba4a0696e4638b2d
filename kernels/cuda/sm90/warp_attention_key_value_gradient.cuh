// dK and dV of one key tile of m = kStationaryRows rows, by one warp, on sm_90a. LSE and delta are
// those of the column.
//   S^T [m, n]   = K [m, D] * Q [n, D]^T       n = kColumns queries at a time
//   P^T [m, n]   = exp(kScale * S^T - LSE)
//   dS^T [m, n]  = P^T * (V [m, D] * dO [n, D]^T - delta)
//   dV [m, D]   += P^T [m, n] * dO [n, D]
//   dK [m, D]   += dS^T [m, n] * Q [n, D]      at the end times kScale
// Rows of padded keys get zeros.
#include "kernels/cuda/sm90/warp_contract.cuh"

#define SPION_BODY
enum : int { kStationaryTensors = 2 };  // K, V; streamed: Q, dO
enum : bool { kStationaryHasStatistics = false };
enum : bool { kStageHasStatistics = true };  // LSE, delta
enum : bool { kStationaryStaysInUse = kHeldOperands < 2 };
enum : bool { kEmptyHasTiles = false };
#include "kernels/cuda/common/mask.cuh"
#include "kernels/cuda/sm90/warp_pipeline.cuh"

struct Consumer {
    Operand<(kHeldOperands > 0)> key;
    Operand<(kHeldOperands > 1)> value;
    Result key_gradient, value_gradient;
    StepElements<true> elements;  // from the step that comes next on

    __device__ __forceinline__ void begin(const SpionAttentionArguments& args,
                                          const ConsumerMemory& memory, const ItemPlan& plan) {
        elements = step_elements<true>(args, plan);
        key.take(memory.stationary_tile(0));
        value.take(memory.stationary_tile(1));
        set_zero(key_gradient);
        set_zero(value_gradient);
    }

    __device__ __forceinline__ void walk_again(const SpionAttentionArguments& args,
                                               const ItemPlan& plan, int member) {
        elements =
            step_elements<true>(args, plan).of_member(args, plan.batch(), plan.head(), member);
    }

    // Queries that the step does not have are zeros throughout, LSE and delta too, and add nothing.
    __device__ __forceinline__ void add(unsigned query_tile, unsigned statistics, int valid) {
        const unsigned output_gradient_tile = query_tile + kTileBytes;
        // Two lanes draw for 32 columns together, where 16 are multiplied at once.
        KeptElements<true, kStreamedRows / 8> of_step[kRowTiles];
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
            of_step[m] = elements.of_row_tile(m).template kept<kStreamedRows / 8>(0);
        }
#pragma unroll 1
        for (int column = 0; column < kStreamedRows && column < valid; column += kColumns) {
            // This lane's columns: 8 j + 2 t and the next.
            const unsigned lane_lse = statistics + (column + lane_index() % 4 * 2) * 4;
            const unsigned lane_delta = lane_lse + kStreamedRows * 4;
            Scores scores, gradient;
            set_zero(scores);
            add_scores(scores, key, query_tile, column);
            ScoreSlopes<kScoreTiles> slopes[kRowTiles];
            KeptElements<true, kScoreTiles> kept[kRowTiles];
#pragma unroll
            for (int m = 0; m < kRowTiles; ++m) {
                change_scores(scores[m]);
                slopes[m].take(scores[m]);
                elements.of_row_tile(m).add_position_terms(scores[m], slopes[m], column);
                kept[m] = of_step[m].template part<kScoreTiles>(column);
            }
#pragma unroll
            for (int j = 0; j < kScoreTiles; ++j) {
                const float2 lse = load_shared_float2(lane_lse + j * 32);
                const float shift[2] = {probability_shift(lse.x), probability_shift(lse.y)};
                const float2 delta = load_shared_float2(lane_delta + j * 32);
#pragma unroll
                for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        scores[m][j][i] = probability(scores[m][j][i], shift[i % 2]);
                        gradient[m][j][i] = kept[m].start(i % 2 == 0 ? delta.x : delta.y);
                    }
                }
            }
#pragma unroll
            for (int m = 0; m < kRowTiles; ++m) {
                mask_transposed(scores[m], ScoreMask<>{valid - column});
                elements.of_row_tile(m).drop(scores[m], column, 0.0F);
            }
            if constexpr (kDrops) {
                Scores dropped;
#pragma unroll
                for (int m = 0; m < kRowTiles; ++m) {
                    copy(dropped[m], scores[m]);
                    kept[m].drop(dropped[m]);
                }
                add_product(value_gradient, dropped, output_gradient_tile, column);
            } else {
                add_product(value_gradient, scores, output_gradient_tile, column);
            }
            add_scores(gradient, value, output_gradient_tile, column);
#pragma unroll
            for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
                for (int j = 0; j < kScoreTiles; ++j) {
                    float2 delta = {};
                    if constexpr (kDrops) delta = load_shared_float2(lane_delta + j * 32);
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        gradient[m][j][i] =
                            slopes[m].gradient(j, i, scores[m][j][i],
                                               kept[m].finish(j, i, gradient[m][j][i],
                                                              i % 2 == 0 ? delta.x : delta.y));
                    }
                }
            }
            add_product(key_gradient, gradient, query_tile, column);
        }
        elements = elements.at(1);
    }

    __device__ __forceinline__ void finish(const SpionAttentionArguments& args,
                                           const ItemPlan& plan, unsigned staging) {
        if constexpr (kKeyPadding) {
            const int valid = key_limit(args, plan.batch()) - plan.first_row;
            zero_rows_from(valid, key_gradient);
            zero_rows_from(valid, value_gradient);
        }
        float scale[kRowTiles][2], kept[kRowTiles][2];
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
            scale[m][0] = scale[m][1] = kScale;
            kept[m][0] = kept[m][1] = kept_factor(args);
        }
        store_result(staging, key_gradient, scale,
                     key_rows_of(args, args.d_k, plan.batch(), plan.head()), plan.first_row,
                     key_count(args, plan.batch()));
        store_result(staging + kTileBytes, value_gradient, kept,
                     key_rows_of<ValueRows>(args, args.d_v, plan.batch(), plan.head()),
                     plan.first_row, key_count(args, plan.batch()));
    }

    __device__ __forceinline__ void finish_empty(const SpionAttentionArguments& args,
                                                 const ItemPlan& plan) {
        store_zeros(key_rows_of(args, args.d_k, plan.batch(), plan.head()), plan.first_row,
                    key_count(args, plan.batch()));
        store_zeros(key_rows_of<ValueRows>(args, args.d_v, plan.batch(), plan.head()),
                    plan.first_row, key_count(args, plan.batch()));
    }
};

extern "C" __global__ void __launch_bounds__(kBlockThreads, kResidentBlocks)
    attention_key_value_gradient(const __grid_constant__ SpionSm90Arguments args) {
    run_items<Consumer, false>(args);
}
