// O and LSE of one query tile.
//   S [16, n]   = Q [16, D] * K [n, D]^T        a warp's 16 rows, n = kColumns keys at a time
//   P [16, n]   = 2^(S * kScaleLog2 - m)        m, Z: running maximum and sum of the row
//   O [16, D]  += P [16, n] * V [n, D]          rescaled when m grows; at the end O / Z
// A thread block has one query tile [kStationaryRows, D] of one (b, h); the key and value rows of
// the tile's gather blocks stream through shared memory, kStreamedRows at a time.
#include "kernels/cuda/common/attention_walk.cuh"
#include "kernels/cuda/common/online_softmax.cuh"
#include "kernels/cuda/common/packed_rows.cuh"
#include "kernels/cuda/sm80/contract.cuh"
#include "kernels/cuda/sm80/warp_mma.cuh"

// Shared memory: Q [kStationaryRows, D], later O; then a stage each: K, V [kStreamedRows, D].
SPION_REQUIRE_SHARED_BYTES(kStationaryBytes + kStages * 2 * kTileBytes);

extern "C" __global__ void __launch_bounds__(kThreads, kResidentBlocks)
    attention_forward(const __grid_constant__ SpionAttentionArguments args) {
    const WorkItem item = work_item(args, blockIdx.x);
    const int limit = key_limit(args, item.batch);
    Walk walk = open_walk(args, item.order_index);
    const int warp_row = 16 * warp_index();
    const unsigned query_tile = shared_memory_start();
    const unsigned stage_tiles = query_tile + kStationaryBytes;
    const Rows keys = key_rows_of(args, args.k, item.batch, key_head(item.head));
    const ValueRows values = key_rows_of<ValueRows>(args, args.v, item.batch, key_head(item.head));

    copy_warp_rows(query_tile, warp_row, rows_of(args, args.q, item.batch, item.head),
                   item.first_row, query_limit(args, item.batch));
    measure_walk(walk, clip_walk<false>(args, walk, item.batch, item.first_row, limit));
    const int steps = walk.steps();
    const auto copy = [&](int step, int buffer) {
        const unsigned tile = stage_tiles + buffer * 2 * kTileBytes;
        copy_step(walk, step, tile, keys, tile + kTileBytes, values);
    };
    begin_steps(steps, copy);
    GatherMask gather_mask = open_gather_mask(args, walk);

    wait_first();
    __syncwarp();
    const Stationary<kHeldInRegisters> query(query_tile, warp_row);
    if constexpr (kPacked && kPrunedCount) walk.elements = elements_of(args, walk, gather_mask);
    OnlineSoftmax softmax(pruned_elements(kKeyLength, walk.elements));
    const StepElements<false> elements = step_elements<false>(
        args, walk.gather_blocks, walk.listed, item.batch, item.head, item.first_row + warp_row);
    if constexpr (kElementsMasked) {
        int pruned[2] = {0, 0};
        if (kPrunedCount) pruned_of_rows(pruned, args, elements);
        softmax.start_rows(pruned);
        softmax.start_finite();
    }
    softmax.add_sink(sink_exponent(args, item.head));
    float out[kHeadTiles][4];
    set_zero(out);

    for (int step = 0; step < steps; ++step) {
        const int buffer = await_step(step, steps, copy, [](int) {});
        const unsigned key_tile = stage_tiles + buffer * 2 * kTileBytes;
        const int valid = walk.valid - step * kStreamedRows;
        gather_mask.enter(args, walk, step);
#pragma unroll 1
        for (int column = 0; column < kStreamedRows && column < valid; column += kColumns) {
            if constexpr (kPacked) {
                if (!gather_mask.at(step, column)) continue;
            }
            float scores[kColumns / 8][4];
            set_zero(scores);
            WarpMma::multiply_transposed(scores, query, key_tile, column);
            change_scores(scores);
            elements.at(step).add_position_terms(scores, column);
            mask_scores(scores, ScoreMask<>{valid - column});
            elements.at(step).drop(scores, column, kMaskedScore);
            softmax.update(scores, out);
            elements.at(step).template kept<kColumns / 8>(column).drop(scores);
            WarpMma::multiply(out, scores, key_tile + kTileBytes, column);
        }
    }

    cp_async_wait_group<0>();
    softmax.finish();
    const float factor[2] = {softmax.reciprocal(0) * kept_factor(args),
                             softmax.reciprocal(1) * kept_factor(args)};
    store_warp_rows(query_tile, warp_row, out, factor,
                    value_rows_of(args, args.o, item.batch, item.head), item.first_row,
                    query_limit(args, item.batch));
    const int row = item.first_row + warp_row + lane_index() / 4;
    if (lane_index() % 4 == 0) {
        const int queries = query_limit(args, item.batch);
        if (row < queries) args.lse[item.row + row] = softmax.lse(0);
        if (row + 8 < queries) args.lse[item.row + row + 8] = softmax.lse(1);
    }
}
