// O and LSE of one query tile, on sm_90a, for n = kStreamedRows keys a step.
//   S [64, n]   = Q [64, D] * K [n, D]^T        a warpgroup's 64 rows
//   P [64, n]   = 2^(S * kScaleLog2 - m)        m, Z: row max and sum (StepSumSoftmax)
//   O [64, D]  += P [64, n] * V [n, D]          rescaled when m moves; at the end O / Z
// While the exponentials of a step are taken, the tensor cores multiply P V of the step before.
#include "kernels/cuda/sm90/wgmma_contract.cuh"

#define SPION_BODY
enum : int { kStationaryTensors = 1 };  // Q, later O; streamed: K, V
enum : bool { kStationaryHasStatistics = false };
enum : bool { kStageHasStatistics = false };
enum : int { kHelperWarps = 0, kExchangeBytes = 0 };
#include "kernels/cuda/common/online_softmax.cuh"
#include "kernels/cuda/sm90/wgmma_pipeline.cuh"

enum : int { kScoreTiles = kStreamedRows / 8 };

using Operand = unsigned[kScoreTiles / 2][4];  // P of a step, rounded

// Whether the warpgroups' halves start products in turn, so that those of one run beside the
// exponentials of the other. All warpgroups have the same steps.
#ifdef SPION_FULL_PATTERN
enum : bool { kTakesTurns = kGroups > 1 && !kDrops };  // random numbers are drawn between them
#else
enum : bool { kTakesTurns = false };
#endif
enum : int { kFirstTurn = 5 };  // a barrier a warpgroup, behind those of zero_rows

struct Consumer {
    int group;  // this warpgroup of the block's consumers
    PipelineState<kStationaryStages> stationary_stage;
    PipelineState<kStages> key, value;  // the stage whose key or value tile comes next

    __device__ __forceinline__ Consumer() : group(warp_index() / 4) {
        if (kTakesTurns && group >= kGroups - kGroups / 2) end_turn();  // the others come first
    }

    // A warpgroup's turn comes when the one half of them away has had its own.
    __device__ __forceinline__ void begin_turn() const {
        if constexpr (kTakesTurns) bar_sync(kFirstTurn + group, 256);
    }
    __device__ __forceinline__ void end_turn() const {
        if constexpr (kTakesTurns) bar_arrive(kFirstTurn + (group + kGroups / 2) % kGroups, 256);
    }

    // S of the next key tile, not yet masked; returns which of its gather blocks the warp's rows
    // use.
    __device__ __forceinline__ unsigned start_step(float (&scores)[kScoreTiles][4],
                                                   unsigned query_tile) {
        mbarrier_wait(stage_full(key.index, 0), key.parity);
        const unsigned gather_mask = gather_mask_of_stage(key.index);
        warpgroup_fence_operand(scores);
        wgmma_fence();
        start_scores<kStreamedRows, kKeyDim>(scores, query_tile, stage_tile(key.index, 0));
        wgmma_commit_group();
        return gather_mask;
    }
    // What start_step has begun, all but the kPending youngest products done.
    template <int kPending>
    __device__ __forceinline__ void finish_step(float (&scores)[kScoreTiles][4],
                                                const StepMask& mask,
                                                const StepElements<false>& elements) {
        wgmma_wait_group<kPending>();
        warpgroup_fence_operand(scores);
        release_stage(key.index, 0);
        key.advance();
        change_scores(scores);
        elements.add_position_terms(scores, 0);
        mask_scores<kStepsAreFull>(scores, mask);
        elements.drop(scores, 0, kMaskedScore);
    }

    // O += P V of the next value tile, of whose rows the first `valid` count.
    __device__ __forceinline__ void start_output(float (&out)[kValueTiles][4],
                                                 Operand& probabilities, int valid) {
        mbarrier_wait(stage_full(value.index, 1), value.parity);
        const unsigned tile = stage_tile(value.index, 1);
        if (may_have_padded_rows<kStreamedRows>(valid))
            zero_rows<kStreamedRows>(tile, valid, 1 + group);
        warpgroup_fence_operand(out);
        warpgroup_fence_operand(probabilities);
        wgmma_fence();
        start_sum(out, probabilities, tile);
        wgmma_commit_group();
    }
    __device__ __forceinline__ void finish_output(float (&out)[kValueTiles][4],
                                                  Operand& probabilities) {
        wgmma_wait_group<0>();
        warpgroup_fence_operand(out);
        warpgroup_fence_operand(probabilities);
        release_stage(value.index, 1);
        value.advance();
    }

    // P of the next step, while P V of the step before is under way.
    __device__ __forceinline__ void advance(StepSumSoftmax& softmax,
                                            float (&scores)[kScoreTiles][4],
                                            float (&out)[kValueTiles][4], unsigned query_tile,
                                            Operand& before, Operand& next, int valid,
                                            StepElements<false>& elements) {
        begin_turn();
        const unsigned gather_mask = start_step(scores, query_tile);
        elements = elements.at(1);
        const auto kept = elements.template kept<kScoreTiles>(0);
        start_output(out, before, kStreamedRows);
        end_turn();
        finish_step<1>(scores, step_mask(valid, gather_mask), elements);
        float step_sum[2];
        softmax.take_exponentials(scores, next, step_sum);
        const bool large = StepSumSoftmax::is_large(step_sum);
        finish_output(out, before);
        if (large) {
            float rescale[2];
            softmax.follow(scores, rescale);
            softmax.take_exponentials(scores, next, step_sum);
            scale_rows(out, rescale);
        }
        softmax.add(step_sum);
        kept.drop(next);
    }

    __device__ __forceinline__ void compute(const SpionAttentionArguments& args, ItemPlan plan);
};

__device__ __forceinline__ void Consumer::compute(const SpionAttentionArguments& args,
                                                  ItemPlan plan) {
    const unsigned query_tile =
        stationary_tile(stationary_stage.index, 0) + group * kGroupTileBytes;
    StepSumSoftmax softmax(pruned_elements(kKeyLength, plan.elements));
    StepElements<false> elements =
        step_elements<false>(args, plan, group * kGroupRows + warp_index() % 4 * 16);
    if constexpr (kElementsMasked) {
        int pruned[2] = {0, 0};
        if (kPrunedCount) pruned_of_rows(pruned, args, elements);
        softmax.start_rows(pruned);
    }
    // A step may have nothing for the warp's rows, or for one of them.
    if constexpr (kPacked || kElementsMasked) softmax.start_finite();
    softmax.add_sink(sink_exponent(args, plan.head()));
    float out[kValueTiles][4];
    set_zero(out);

    if (plan.steps() > 0) {
        float scores[kScoreTiles][4];
        Operand even, odd;  // P of even steps, of odd ones
        const unsigned gather_mask = start_step(scores, query_tile);
        finish_step<0>(scores, step_mask(plan.valid, gather_mask), elements);
        softmax.first_step(scores, even);
        elements.template kept<kScoreTiles>(0).drop(even);
        int valid = plan.valid;  // rows from the step whose P is the newest on
#pragma unroll 1
        while (true) {
            if (valid <= kStreamedRows) {
                start_output(out, even, valid);
                finish_output(out, even);
                break;
            }
            valid -= kStreamedRows;
            advance(softmax, scores, out, query_tile, even, odd, valid, elements);
            if (valid <= kStreamedRows) {
                start_output(out, odd, valid);
                finish_output(out, odd);
                break;
            }
            valid -= kStreamedRows;
            advance(softmax, scores, out, query_tile, odd, even, valid, elements);
        }
    }

    softmax.finish();
    float factor[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        factor[half] = softmax.row_sum[half] == 0.0F
                           ? 0.0F
                           : rcp_approx(softmax.row_sum[half]) * kept_factor(args);
    }
    const int first = plan.first_row + group * kGroupRows + warp_index() % 4 * 16;
    ResultRows rows;
    rows.take(query_tile, out, factor);
    fence_proxy_async_shared();
    mbarrier_arrive_by_lanes(stationary_empty(stationary_stage.index));
    stationary_stage.advance();
    rows.store(value_rows_of(args, args.o, plan.batch(), plan.head()), first,
               query_limit(args, plan.batch()));
    const int row = first + lane_index() / 4;
    float* const lse = args.lse + (long long)plan.batch_head * kLength;
    if (lane_index() % 4 == 0) {
        const int queries = query_limit(args, plan.batch());
        if (row < queries) lse[row] = softmax.lse(0);
        if (row + 8 < queries) lse[row + 8] = softmax.lse(1);
    }
}

extern "C" __global__ void __launch_bounds__(kBlockThreads, kResidentBlocks)
    attention_forward(const __grid_constant__ SpionSm90Arguments args) {
    run_items<Consumer, true>(
        args, [](const WorkItem&, unsigned) {}, [](const WorkItem&, const Walk&, int, unsigned) {});
}
