// dK and dV of one key tile, on sm_90a. LSE and delta are those of the column.
//   S^T [64, n]   = K [64, D] * Q [n, D]^T       a warpgroup's 64 keys, n = kStreamedRows queries
//   P^T [64, n]   = exp(kScale * S^T - LSE)
//   dS^T [64, n]  = P^T * (V [64, D] * dO [n, D]^T - delta)
//   dV [64, D]   += P^T [64, n] * dO [n, D]
//   dK [64, D]   += dS^T [64, n] * Q [n, D]      at the end times kScale
// Rows of padded keys get zeros. S of a step is under way behind dV and dK of the step before, and
// dP beside the exponentials.
#include "kernels/cuda/sm90/wgmma_contract.cuh"

#define SPION_BODY
enum : int { kStationaryTensors = 2 };  // K, later dK; V, later dV; streamed: Q, dO
enum : bool { kStationaryHasStatistics = false };
enum : bool { kStageHasStatistics = true };  // LSE, delta
enum : int { kHelperWarps = 0, kExchangeBytes = 0 };
#include "kernels/cuda/sm90/wgmma_columns.cuh"

using Scores = float[kScoreTiles][4];
using Operand = unsigned[kScoreTiles / 2][4];
using Kept = KeptElements<true, kScoreTiles>;

// Whether there are registers for what depends on positions, from step to step.
enum : bool { kElementsStay = kDrops && kMembers == 1 && kHeadTiles <= 8 };
enum : bool { kPositionTerms = kSlopes || kRelativeBias > 0 || kExpression };  // of scores

struct Consumer {
    int group;  // this warpgroup of the block's consumers
    PipelineState<kStationaryStages> stationary_stage;
    PipelineState<kStages> stage;
    float key_gradient[kKeyTiles][4], value_gradient[kValueTiles][4];
    Operand probabilities, operand;  // P, dS; of products under way

    __device__ __forceinline__ Consumer() : group(warp_index() / 4) {}

    // S of the stage that comes next; returns which of its gather blocks the warp's rows use.
    __device__ __forceinline__ unsigned start_step(Scores& scores, unsigned key_tile) const {
        mbarrier_wait(stage_full(stage.index, 0), stage.parity);
        const unsigned gather_mask = gather_mask_of_stage(stage.index);
        warpgroup_discard_operand(scores);
        wgmma_fence();
        start_scores<kStreamedRows, kKeyDim>(scores, key_tile, stage_tile(stage.index, 0));
        wgmma_commit_group();
        return gather_mask;
    }
    // What dropout keeps of the step, drawn while products are under way. left, item: as below.
    __device__ __forceinline__ Kept draw(const SpionAttentionArguments& args, int left,
                                         const StepElements<true>& item) const {
        if constexpr (!kDrops) return {};
        const int row = group * kGroupRows + warp_index() % 4 * 16;
        const StepElements<true> here =
            kElementsStay ? item : elements_of_step(args, stationary_stage.index, left, row);
        return here.template kept<kScoreTiles>(0);
    }
    // From S to the step's products for dV and dK, which are left under way. left: steps of the
    // item from this one on; item: with kElementsStay, what depends on this one's positions.
    __device__ __forceinline__ void start_gradients(Scores& scores, unsigned gather_mask,
                                                    const SpionAttentionArguments& args, int left,
                                                    unsigned value_tile,
                                                    const StepElements<true>& item,
                                                    const Kept& kept);
    // When all but the kPending youngest products are done, the stage is free.
    template <int kPending>
    __device__ __forceinline__ void finish_gradients(int done) {
        wgmma_wait_group<kPending>();
        warpgroup_fence_operand(key_gradient);
        warpgroup_fence_operand(value_gradient);
        warpgroup_fence_operand(probabilities);
        warpgroup_fence_operand(operand);
        release_stage(done, 0);
        release_stage(done, 1);
    }
    __device__ __forceinline__ void compute(const SpionAttentionArguments& args, ItemPlan plan);
};

__device__ __forceinline__ void Consumer::start_gradients(Scores& scores, unsigned gather_mask,
                                                          const SpionAttentionArguments& args,
                                                          int left, unsigned value_tile,
                                                          const StepElements<true>& item,
                                                          const Kept& kept) {
    const unsigned output_gradient_tile = stage_tile(stage.index, 1);
    Scores gradient;
    mbarrier_wait(stage_full(stage.index, 1), stage.parity);
    warpgroup_discard_operand(gradient);
    wgmma_fence();
    start_scores<kStreamedRows, kValueDim>(gradient, value_tile, output_gradient_tile);
    wgmma_commit_group();
    const unsigned statistics = lane_statistics(stage.index, lane_index());
    const int warp_row = group * kGroupRows + warp_index() % 4 * 16;
    StepElements<true> elements;
    if constexpr (kPositionTerms) {
        elements =
            kElementsStay ? item : elements_of_step(args, stationary_stage.index, left, warp_row);
    }
    const ScoreSlopes<kScoreTiles> slopes =
        take_probabilities(scores, statistics, step_mask(kStreamedRows, gather_mask), elements);
    drop_part_of_step<0, kScoreTiles>(scores, args, stationary_stage.index, left, warp_row);
    wgmma_wait_group<0>();
    warpgroup_fence_operand(gradient);
    if constexpr (kDividedByKept) {
        take_kept_gradient(gradient, scores, statistics, kept);
    } else {
        take_score_gradient(gradient, scores, statistics, slopes, kept);
    }
    pack_operand(probabilities, scores);
    if constexpr (!kDividedByKept) kept.drop(probabilities);
    pack_operand(operand, gradient);
    warpgroup_fence_operand(key_gradient);
    warpgroup_fence_operand(value_gradient);
    warpgroup_fence_operand(probabilities);
    warpgroup_fence_operand(operand);
    wgmma_fence();
    start_sum(value_gradient, probabilities, output_gradient_tile);
    start_sum(key_gradient, operand, stage_tile(stage.index, 0));
    wgmma_commit_group();
}

__device__ __forceinline__ void Consumer::compute(const SpionAttentionArguments& args,
                                                  ItemPlan plan) {
    const unsigned key_tile = stationary_tile(stationary_stage.index, 0) + group * kGroupTileBytes;
    const unsigned value_tile =
        stationary_tile(stationary_stage.index, 1) + group * kGroupTileBytes;

    set_zero(key_gradient);
    set_zero(value_gradient);
    const int steps = kMembers * plan.steps();
    StepElements<true> elements;
    if constexpr (kElementsStay) {
        elements = step_elements<true>(args, plan, group * kGroupRows + warp_index() % 4 * 16);
    }
    Scores scores;
    Kept kept;  // of the step that S is of
    unsigned gather_mask = 0;
    if (steps > 0) {
        gather_mask = start_step(scores, key_tile);
        kept = draw(args, steps, elements);
        wgmma_wait_group<0>();
        warpgroup_fence_operand(scores);
    }
#pragma unroll 1
    for (int left = steps; left > 0; --left) {
        start_gradients(scores, gather_mask, args, left, value_tile, elements, kept);
        if constexpr (kElementsStay) elements = elements.at(1);
        const int done = stage.index;
        stage.advance();
        if (left > 1) {
            gather_mask = start_step(scores, key_tile);
            kept = draw(args, left - 1, elements);
            finish_gradients<1>(done);
            wgmma_wait_group<0>();
            warpgroup_fence_operand(scores);
        } else {
            finish_gradients<0>(done);
        }
    }

    const int first = plan.first_row + group * kGroupRows + warp_index() % 4 * 16;
    if constexpr (kKeyPadding) {
        const int valid = key_limit(args, plan.batch()) - first;
        zero_rows_from(valid, key_gradient);
        zero_rows_from(valid, value_gradient);
    }
    const float counts = kept_factor(args), scaled = kDividedByKept ? kScale * counts : kScale;
    const float counted[2] = {counts, counts}, scale[2] = {scaled, scaled};
    ResultRows key_rows, value_rows;
    key_rows.take(key_tile, key_gradient, scale);
    value_rows.take(value_tile, value_gradient, counted);
    fence_proxy_async_shared();
    mbarrier_arrive_by_lanes(stationary_empty(stationary_stage.index));
    stationary_stage.advance();
    const int keys = key_count(args, plan.batch());
    key_rows.store(key_rows_of(args, args.d_k, plan.batch(), plan.head()), first, keys);
    value_rows.store(key_rows_of<ValueRows>(args, args.d_v, plan.batch(), plan.head()), first,
                     keys);
}

extern "C" __global__ void __launch_bounds__(kBlockThreads, kResidentBlocks)
    attention_key_value_gradient(const __grid_constant__ SpionSm90Arguments args) {
    const auto fetch_statistics = [&](const WorkItem& work, const Walk& walk, int step,
                                      unsigned target) {
#pragma unroll
        for (int i = 0; i < kStreamedRows / 32; ++i) {
            const int row = 32 * i + lane_index();
            const int entry = step * kGatherBlocksPerStep + row / kGatherRows;
            const int gather_block = __shfl_sync(0xFFFFFFFFU, walk.window, entry & 31);
            const int source = gather_block * kGatherRows + row % kGatherRows;
            const bool present = step * kStreamedRows + row < walk.valid;
            cp_async_4(target + row * 4, args.attention.lse + work.row + source, present);
            cp_async_4(target + (kStreamedRows + row) * 4, args.attention.delta + work.row + source,
                       present);
        }
    };
    run_items<Consumer, false>(
        args, [](const WorkItem&, unsigned) {}, fetch_statistics);
}
