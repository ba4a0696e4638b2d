// dK and dV of one key tile. LSE and delta are those of the column.
//   S^T [16, n]   = K [16, D] * Q [n, D]^T       a warp's 16 keys, n = kColumns queries at a time
//   P^T [16, n]   = exp(kScale * S^T - LSE)
//   dS^T [16, n]  = P^T * (V [16, D] * dO [n, D]^T - delta)
//   dV [16, D]   += P^T [16, n] * dO [n, D]
//   dK [16, D]   += dS^T [16, n] * Q [n, D]      at the end times kScale
// A thread block has one key tile [kStationaryRows, D] of one (b, h); the query rows of the tile's
// gather blocks stream past it with their LSE and delta. Rows of padded keys get zeros.
#include "kernels/cuda/common/attention_walk.cuh"
#include "kernels/cuda/common/mask.cuh"
#include "kernels/cuda/common/packed_rows.cuh"
#include "kernels/cuda/sm80/attention_statistics.cuh"
#include "kernels/cuda/sm80/contract.cuh"
#include "kernels/cuda/sm80/warp_mma.cuh"

// Shared memory: K, later dK, and V, later dV [kStationaryRows, D]; then the stages' Q, dO
// [kStreamedRows, D]; then the stages' LSE, delta [kStreamedRows] fp32.
enum : int { kStagesBytes = kStages * 2 * kTileBytes };
SPION_REQUIRE_SHARED_BYTES(2 * kStationaryBytes + kStagesBytes + kStages * 2 * kStreamedRows * 4);

// dV += P^T dO and dK += dS^T Q for the queries at rows [column, + kColumns) of the query and
// output gradient tiles, of which the first `valid` count, the mask allowing.
SPION_DEVICE void add_gradients(float (&key_gradient)[kHeadTiles][4],
                                float (&value_gradient)[kHeadTiles][4],
                                const Stationary<kHeldInRegisters>& key,
                                const Stationary<kHeldInRegisters>& value, unsigned query_tile,
                                unsigned statistics, int column, int valid,
                                const StepElements<true>& elements) {
    const unsigned output_gradient_tile = query_tile + kTileBytes;
    // This lane's columns: column + 8 j + 2 t and the next.
    const unsigned lane_shift = statistics + (column + lane_index() % 4 * 2) * 4;
    const unsigned lane_delta = lane_shift + kStreamedRows * 4;
    float scores[kColumns / 8][4], gradient[kColumns / 8][4];
    set_zero(scores);
    WarpMma::multiply_transposed(scores, key, query_tile, column);
    change_scores(scores);
    ScoreSlopes<kColumns / 8> slopes;
    slopes.take(scores);
    elements.add_position_terms(scores, slopes, column);
    mask_scores(scores, ScoreMask<>{valid});
    elements.drop(scores, column, kMaskedScore);
    const auto kept = elements.template kept<kColumns / 8>(column);
#pragma unroll
    for (int j = 0; j < kColumns / 8; ++j) {
        const float2 shift = load_shared_float2(lane_shift + j * 32);
        const float2 delta = load_shared_float2(lane_delta + j * 32);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float column_shift = i % 2 == 0 ? shift.x : shift.y;
            scores[j][i] = probability(scores[j][i], column_shift);
            gradient[j][i] = kept.start(i % 2 == 0 ? delta.x : delta.y);
        }
    }
    if constexpr (kDrops) {
        float dropped[kColumns / 8][4];
        copy(dropped, scores);
        kept.drop(dropped);
        WarpMma::multiply(value_gradient, dropped, output_gradient_tile, column);
    } else {
        WarpMma::multiply(value_gradient, scores, output_gradient_tile, column);
    }
    WarpMma::multiply_transposed(gradient, value, output_gradient_tile, column);
#pragma unroll
    for (int j = 0; j < kColumns / 8; ++j) {
        float2 delta = {};
        if constexpr (kDrops) delta = load_shared_float2(lane_delta + j * 32);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            gradient[j][i] =
                slopes.gradient(j, i, scores[j][i],
                                kept.finish(j, i, gradient[j][i], i % 2 == 0 ? delta.x : delta.y));
        }
    }
    WarpMma::multiply(key_gradient, gradient, query_tile, column);
}

extern "C" __global__ void __launch_bounds__(kThreads, kResidentBlocks)
    attention_key_value_gradient(const __grid_constant__ SpionAttentionArguments args) {
    const WorkItem item = work_item(args, blockIdx.x);
    const int limit = key_limit(args, item.batch);
    Walk walk = open_walk(args, item.order_index);
    const int warp_row = 16 * warp_index();
    const unsigned key_tile = shared_memory_start();
    const unsigned value_tile = key_tile + kStationaryBytes;
    const unsigned stage_tiles = value_tile + kStationaryBytes;
    const unsigned stage_statistics = stage_tiles + kStagesBytes;
    const Rows queries = rows_of(args, args.q, item.batch, query_head(item.head, 0));
    const ValueRows output_gradients =
        value_rows_of(args, args.d_o, item.batch, query_head(item.head, 0));

    copy_warp_rows(key_tile, warp_row, key_rows_of(args, args.k, item.batch, key_head(item.head)),
                   item.first_row, limit);
    copy_warp_rows(value_tile, warp_row,
                   key_rows_of<ValueRows>(args, args.v, item.batch, key_head(item.head)),
                   item.first_row, limit);
    float key_gradient[kHeadTiles][4], value_gradient[kHeadTiles][4];
    // Where members have walks of their own, one walk after the other; else one with all of them.
#pragma unroll 1
    for (int walked_member = 0; walked_member < kItemWalks; ++walked_member) {
        if (walked_member > 0) {
            __syncthreads();  // every warp is done with the stages
            walk = open_walk(args, item.order_index, walked_member);
        }
        measure_walk(walk, clip_walk<true>(args, walk, item.batch, item.first_row,
                                           query_limit(args, item.batch)));
        const int walked = item.first_row < limit ? walk.steps() : 0;
        const int steps = kItemWalks > 1 ? walked : kMembers * walked;
        const auto copy = [&](int step, int buffer) {
            const unsigned tile = stage_tiles + buffer * 2 * kTileBytes;
            MemberStep at = member_step(step, walked);
            if constexpr (kItemWalks > 1) at = {walked_member, step};
            const WorkItem streamed = member_item(item, at.member);
            copy_step(walk, at.step, tile, rows_further(queries, args.q, at.member),
                      tile + kTileBytes, rows_further(output_gradients, args.d_o, at.member));
            copy_statistics(walk, at.step, stage_statistics + buffer * 2 * kStreamedRows * 4,
                            args.lse + streamed.row, args.delta + streamed.row);
        };
        const auto arrived = [&](int buffer) {
            shift_statistics(stage_statistics + buffer * 2 * kStreamedRows * 4);
        };
        begin_steps(steps, copy);
        GatherMask gather_mask = open_gather_mask(args, walk);

        wait_first();
        __syncwarp();
        const Stationary<kHeldInRegisters> key(key_tile, warp_row);
        const Stationary<kHeldInRegisters> value(value_tile, warp_row);
        if (walked_member == 0) {
            set_zero(key_gradient);
            set_zero(value_gradient);
        }
        const StepElements<true> elements =
            step_elements<true>(args, walk.gather_blocks, walk.listed, item.batch, item.head,
                                item.first_row + warp_row);

        for (int step = 0; step < steps; ++step) {
            const int buffer = await_step(step, steps, copy, arrived);
            const unsigned query_tile = stage_tiles + buffer * 2 * kTileBytes;
            const unsigned statistics = stage_statistics + buffer * 2 * kStreamedRows * 4;
            MemberStep at = member_step(step, walked);
            if constexpr (kItemWalks > 1) at = {walked_member, step};
            const int walk_step = at.step;
            const StepElements<true> here =
                elements.at(walk_step).of_member(args, item.batch, item.head, at.member);
            const int valid = walk.valid - walk_step * kStreamedRows;
            gather_mask.enter(args, walk, walk_step);
#pragma unroll 1
            for (int column = 0; column < kStreamedRows && column < valid; column += kColumns) {
                if constexpr (kPacked) {
                    if (!gather_mask.at(walk_step, column)) continue;
                }
                add_gradients(key_gradient, value_gradient, key, value, query_tile, statistics,
                              column, valid - column, here);
            }
        }

        cp_async_wait_group<0>();
    }
    const int keys = key_count(args, item.batch);
    zero_rows_from(limit - item.first_row - warp_row, key_gradient, value_gradient);
    const float kept[2] = {kept_factor(args), kept_factor(args)}, scale[2] = {kScale, kScale};
    store_warp_rows(key_tile, warp_row, key_gradient, scale,
                    key_rows_of(args, args.d_k, item.batch, key_head(item.head)), item.first_row,
                    keys);
    store_warp_rows(value_tile, warp_row, value_gradient, kept,
                    key_rows_of<ValueRows>(args, args.d_v, item.batch, key_head(item.head)),
                    item.first_row, keys);
}
