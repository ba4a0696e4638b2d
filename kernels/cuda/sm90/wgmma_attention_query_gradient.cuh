// dQ and delta of one query tile, on sm_90a.
//   delta [64]       = rowsum(dO * O)                a warpgroup's 64 rows
//   S [64, n]        = Q [64, D] * K [n, D]^T        n = kStreamedRows keys a step
//   P [64, n]        = exp(kScale * S - LSE)
//   dS [64, n]       = P * (dO [64, D] * V [n, D]^T - delta)
//   dbias           += dS, by distance               with a bias, relative_bias.cuh
//   dQ [64, D]      += dS [64, n] * K [n, D]         at the end times kScale
// The product with dS of a step runs beside the products of the next.
#include "kernels/cuda/sm90/wgmma_contract.cuh"

#define SPION_BODY
enum : int { kStationaryTensors = 3 };            // Q, later dQ; dO; O; streamed: K, V
enum : bool { kStationaryHasStatistics = true };  // LSE
enum : bool { kStageHasStatistics = false };
enum : int { kHelperWarps = 0, kExchangeBytes = 0 };
#include "kernels/cuda/common/online_softmax.cuh"
#include "kernels/cuda/sm90/wgmma_pipeline.cuh"

enum : int { kScoreTiles = kStreamedRows / 8 };
// Whether dS is summed divided by how many times a kept element counts.
enum : bool { kDividedByKept = kDrops && !kCaps && !kExpression && kRelativeBias == 0 };

// delta of rows g (0) and g + 8 (1) of the warp: a lane's chunks are every fourth of the row's.
SPION_DEVICE void group_delta(float (&delta)[2], unsigned output_gradient_tile,
                              unsigned output_tile) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int row = warp_index() % 4 * 16 + lane_index() / 4 + 8 * half;
        float sum = 0.0F;
#pragma unroll
        for (int chunk = 0; chunk < kRowChunks; chunk += 4) {
            if (kRowChunks % 4 != 0 && chunk + lane_index() % 4 >= kRowChunks) break;
            const int offset = tile_offset<kGroupRows>(row, (chunk + lane_index() % 4) * 16);
            sum += dot_chunk<Element>(load_shared_16(output_gradient_tile + offset),
                                      load_shared_16(output_tile + offset));
        }
        delta[half] = quad_sum(sum);
    }
}

struct Consumer {
    int group;  // this warpgroup of the block's consumers
    PipelineState<kStationaryStages> stationary_stage;
    PipelineState<kStages> stage;

    __device__ __forceinline__ Consumer() : group(warp_index() / 4) {}
    __device__ __forceinline__ void compute(const SpionAttentionArguments& args, ItemPlan plan);
};

__device__ __forceinline__ void Consumer::compute(const SpionAttentionArguments& args,
                                                  ItemPlan plan) {
    const unsigned query_tile =
        stationary_tile(stationary_stage.index, 0) + group * kGroupTileBytes;
    const unsigned output_gradient_tile =
        stationary_tile(stationary_stage.index, 1) + group * kGroupTileBytes;
    const unsigned output_tile =
        stationary_tile(stationary_stage.index, 2) + group * kGroupTileBytes;

    const int warp_row = group * kGroupRows + warp_index() % 4 * 16;
    const int first = plan.first_row + warp_row;
    const int queries = query_limit(args, plan.batch());
    float shift[2], delta[2];
    group_delta(delta, output_gradient_tile, output_tile);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int row = lane_index() / 4 + 8 * half;
        const unsigned lse = stationary_statistics(stationary_stage.index) + (warp_row + row) * 4;
        // Rows from L on get the shift that makes every probability 0.
        shift[half] = first + row < queries ? probability_shift(load_shared_float(lse)) : kInfinity;
        if (lane_index() % 4 == 0 && first + row < queries) {
            args.delta[(long long)plan.batch_head * kLength + first + row] = delta[half];
        }
    }

    const float counts = kDividedByKept ? kept_factor(args) : 1.0F;
    if constexpr (kDividedByKept) {
        delta[0] *= rcp_approx(counts);
        delta[1] *= rcp_approx(counts);
    }
    float query_gradient[kKeyTiles][4];
    set_zero(query_gradient);
    const StepElements<false> elements = step_elements<false>(args, plan, warp_row);
    StepElements<false> drawn = elements;
    unsigned operand[kScoreTiles / 2][4];
    BiasGradient of_bias = bias_gradient(args, plan.batch(), plan.head(), first);
    of_bias.start();
    const int steps = plan.steps();
    int done = 0;  // the stage of the step before
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
        const unsigned key_tile = stage_tile(stage.index, 0),
                       value_tile = stage_tile(stage.index, 1);
        const int valid = plan.valid - step * kStreamedRows;
        float scores[kScoreTiles][4], gradient[kScoreTiles][4];
        mbarrier_wait(stage_full(stage.index, 0), stage.parity);
        const unsigned gather_mask = gather_mask_of_stage(stage.index);
        if (may_have_padded_rows<kStreamedRows>(valid))
            zero_rows<kStreamedRows>(key_tile, valid, 1 + group);
        warpgroup_fence_operand(scores);
        wgmma_fence();
        start_scores<kStreamedRows, kKeyDim>(scores, query_tile, key_tile);
        wgmma_commit_group();
        const auto kept = drawn.template kept<kScoreTiles>(0);
        if constexpr (kDrops) drawn = drawn.at(1);
        mbarrier_wait(stage_full(stage.index, 1), stage.parity);
        if (may_have_padded_rows<kStreamedRows>(valid)) {
            zero_rows<kStreamedRows>(value_tile, valid, 1 + group);
        }
        warpgroup_fence_operand(gradient);
        wgmma_fence();
        start_scores<kStreamedRows, kValueDim>(gradient, output_gradient_tile, value_tile);
        wgmma_commit_group();
        wgmma_wait_group<1>();
        warpgroup_fence_operand(scores);
        warpgroup_fence_operand(query_gradient);
        warpgroup_fence_operand(operand);
        if (step > 0) release_stage(done, 0);
        change_scores(scores);
        ScoreSlopes<kScoreTiles> slopes;
        slopes.take(scores);
        elements.at(step).add_position_terms(scores, slopes, 0);
        mask_scores(scores, step_mask(valid, gather_mask));
        elements.at(step).drop(scores, 0, kMaskedScore);
#pragma unroll
        for (int j = 0; j < kScoreTiles; ++j) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                scores[j][i] = probability(scores[j][i], shift[i / 2]);
            }
        }
        wgmma_wait_group<0>();
        warpgroup_fence_operand(gradient);
        release_stage(stage.index, 1);
        const auto take_gradient = [&](int j, int i) {
            if constexpr (kDividedByKept) {
                gradient[j][i] =
                    kept.score_gradient(j, i, scores[j][i], gradient[j][i], delta[i / 2]);
                return;
            }
            const float difference = kept.gradient(j, i, gradient[j][i], delta[i / 2]);
            gradient[j][i] = slopes.gradient(j, i, scores[j][i], difference);
            // dS before a cap's slope, in place of P.
            if constexpr (kRelativeBias > 0) scores[j][i] *= difference;
        };
        kept.for_each(take_gradient);
        pack_operand(operand, gradient);
        warpgroup_fence_operand(query_gradient);
        warpgroup_fence_operand(operand);
        wgmma_fence();
        start_sum(query_gradient, operand, key_tile);
        wgmma_commit_group();
        if constexpr (kRelativeBias > 0) elements.at(step).add_bias_gradient(of_bias, scores, 0);
        done = stage.index;
        stage.advance();
    }
    wgmma_wait_group<0>();
    warpgroup_fence_operand(query_gradient);
    if (steps > 0) release_stage(done, 0);
    of_bias.finish();

    const float factor[2] = {kScale * counts, kScale * counts};
    ResultRows rows;
    rows.take(query_tile, query_gradient, factor);
    fence_proxy_async_shared();
    mbarrier_arrive_by_lanes(stationary_empty(stationary_stage.index));
    stationary_stage.advance();
    rows.store(rows_of(args, args.d_q, plan.batch(), plan.head()), first,
               query_limit(args, plan.batch()));
}

extern "C" __global__ void __launch_bounds__(kBlockThreads, kResidentBlocks)
    attention_query_gradient(const __grid_constant__ SpionSm90Arguments args) {
    const auto fetch_lse = [&](const WorkItem& work, unsigned target) {
        for (int row = lane_index(); row < kStationaryRows; row += 32) {
            const int source = work.first_row + row;
            cp_async_4(target + row * 4, args.attention.lse + work.row + source, source < kLength);
        }
    };
    run_items<Consumer, true>(args, fetch_lse, [](const WorkItem&, const Walk&, int, unsigned) {});
}
