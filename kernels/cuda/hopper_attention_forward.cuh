// O and LSE of one query tile, on sm_90a, for n = kStreamedRows keys a step.
//   S [64, n]   = Q [64, D] * K [n, D]^T        a warpgroup's 64 rows
//   P [64, n]   = 2^(S * kScaleLog2 - m)        m, Z: running maximum and sum of the row
//   O [64, D]  += P [64, n] * V [n, D]          rescaled when m grows; at the end O / Z
// While the exponentials of a step are taken, the tensor cores multiply P V of the step before.
constexpr int kStationaryTensors = 1;  // Q, later O; streamed: K, V
constexpr bool kSlotHasStatistics = false;
constexpr bool kStageHasStatistics = false;
#include "hopper_pipeline.cuh"
#include "softmax.cuh"

constexpr int kScoreTiles = kStreamedRows / 8;

struct Consumer {
    int group;  // this warpgroup of the block's consumers
    Place<kSlots> slot;
    Place<kStages> key, value;  // the stage whose key or value tile comes next

    __device__ __forceinline__ Consumer() : group(warp_index() / 4) {}

    // S of the next key tile, not yet masked; returns which of its granules the warp's rows use.
    __device__ __forceinline__ unsigned start_step(float (&scores)[kScoreTiles][4],
                                                   unsigned query_tile) {
        barrier_wait(stage_full(key.index, 0), key.parity);
        const unsigned uses = uses_of_stage(key.index);
        keep(scores);
        wgmma_fence();
        start_scores<kStreamedRows>(scores, query_tile, stage_tile(key.index, 0));
        wgmma_commit();
        return uses;
    }
    __device__ __forceinline__ void release_key() {
        release(stage_empty(key.index, 0));
        key.advance();
    }

    // O += P V of the next value tile, of whose rows the first `valid` count.
    __device__ __forceinline__ void start_output(float (&out)[kHeadTiles][4],
                                                 unsigned (&probabilities)[kScoreTiles / 2][4],
                                                 int valid) {
        barrier_wait(stage_full(value.index, 1), value.parity);
        const unsigned tile = stage_tile(value.index, 1);
        if (kKeyPadding && valid < kStreamedRows) zero_rows<kStreamedRows>(tile, valid, 1 + group);
        keep(out);
        keep(probabilities);
        wgmma_fence();
        start_sum(out, probabilities, tile);
        wgmma_commit();
    }
    __device__ __forceinline__ void release_value() {
        release(stage_empty(value.index, 1));
        value.advance();
    }

    __device__ __forceinline__ void compute(const SpionAttentionArguments& args, ItemPlan plan);
};

__device__ __forceinline__ void Consumer::compute(const SpionAttentionArguments& args,
                                                  ItemPlan plan) {
    const unsigned query_tile = slot_tile(slot.index, 0) + group * kGroupTileBytes;
    OnlineSoftmax softmax(kPrunedZero ? kLength - plan.elements : 0);
    if constexpr (kPacked) softmax.start_finite();  // a step may have nothing for the warp's rows
    float out[kHeadTiles][4];
    set_zero(out);
    float scores[kScoreTiles][4];
    unsigned probabilities[kScoreTiles / 2][4];

    const int steps = plan.steps();
    if (steps > 0) {
        float rescale[2];
        const unsigned uses = start_step(scores, query_tile);
        wgmma_wait<0>();
        keep(scores);
        release_key();
        set_unused(scores, uses, kMaskedScore);
        if (plan.valid < kStreamedRows) mask_columns(scores, plan.valid);
        softmax.update_scores(scores, rescale);
        pack_operand(probabilities, scores);
        for (int step = 1; step < steps; ++step) {
            const unsigned uses = start_step(scores, query_tile);
            start_output(out, probabilities, kStreamedRows);
            wgmma_wait<1>();
            keep(scores);
            release_key();
            set_unused(scores, uses, kMaskedScore);
            const int valid = plan.valid - step * kStreamedRows;
            if (valid < kStreamedRows) mask_columns(scores, valid);
            softmax.update_scores(scores, rescale);
            wgmma_wait<0>();
            keep(out);
            keep(probabilities);
            release_value();
            scale_rows(out, rescale);
            pack_operand(probabilities, scores);
        }
        start_output(out, probabilities, plan.valid - (steps - 1) * kStreamedRows);
        wgmma_wait<0>();
        keep(out);
        release_value();
    }

    softmax.finish();
    const float factor[2] = {softmax.reciprocal(0), softmax.reciprocal(1)};
    const int first = plan.first_row + group * kGroupRows + warp_index() % 4 * 16;
    store_group_rows(query_tile, out, factor, rows_of(args.o, plan.batch(), plan.head()), first,
                     kLength);
    fence_to_async();
    release(slot_empty(slot.index));
    slot.advance();
    const int row = first + lane_index() / 4;
    float* const lse = args.lse + (long long)plan.pair * kLength;
    if (lane_index() % 4 == 0) {
        if (row < kLength) lse[row] = softmax.lse(0);
        if (row + 8 < kLength) lse[row + 8] = softmax.lse(1);
    }
}

extern "C" __global__ void __launch_bounds__(kBlockThreads, kResidentBlocks)
    attention_forward(const __grid_constant__ SpionHopperArguments args) {
    run_items<Consumer, true>(
        args, [](const WorkItem&, unsigned) {}, [](const WorkItem&, const Walk&, int, unsigned) {});
}
