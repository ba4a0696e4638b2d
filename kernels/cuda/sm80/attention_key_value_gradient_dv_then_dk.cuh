// dK and dV of one key tile where a thread's registers hold one of the two at a time: as
// attention_key_value_gradient.cuh, but the queries stream past twice, first for dV:
//   S^T [16, n]   = K [16, D] * Q [n, D]^T       a warp's 16 keys, n = kColumns queries at a time
//   P^T [16, n]   = exp(kScale * S^T - LSE)
//   dV [16, D]   += P^T [16, n] * dO [n, D]
// then, S^T and P^T once more, for dK:
//   dS^T [16, n]  = P^T * (V [16, D] * dO [n, D]^T - delta)
//   dK [16, D]   += dS^T [16, n] * Q [n, D]      at the end times kScale
#include "kernels/cuda/common/attention_walk.cuh"
#include "kernels/cuda/common/mask.cuh"
#include "kernels/cuda/sm80/attention_statistics.cuh"
#include "kernels/cuda/sm80/contract.cuh"
#include "kernels/cuda/sm80/warp_mma.cuh"

// Shared memory: K, later dK, and dV, then V [kStationaryRows, D]; then the stages' Q, dO
// [kStreamedRows, D]; then the stages' LSE, delta [kStreamedRows] fp32.
enum : int { kStagesBytes = kStages * 2 * kTileBytes };
enum : int { kStatisticsBytes = 2 * kStreamedRows * 4 };  // of a stage
SPION_REQUIRE_SHARED_BYTES(2 * kStationaryBytes + kStagesBytes + kStages * kStatisticsBytes);
static_assert(!kHeldInRegisters, "V arrives when K has been in use for long");

struct Tiles {
    unsigned key, value;         // the warp's rows of them stay
    unsigned query, statistics;  // of one stage; dO follows Q
};

// P^T of the queries at rows [column, + kColumns), of which the first `valid` count, the mask
// allowing.
SPION_DEVICE void compute_probabilities(float (&scores)[kColumns / 8][4],
                                        ScoreSlopes<kColumns / 8>& slopes, const Tiles& tiles,
                                        int warp_row, int column, int valid,
                                        const StepElements<true>& elements) {
    const Stationary<false> key(tiles.key, warp_row);
    // This lane's columns: column + 8 j + 2 t and the next.
    const unsigned lane_shift = tiles.statistics + (column + lane_index() % 4 * 2) * 4;
    set_zero(scores);
    WarpMma::multiply_transposed(scores, key, tiles.query, column);
    change_scores(scores);
    slopes.take(scores);
    elements.add_position_terms(scores, slopes, column);
    mask_scores(scores, ScoreMask<>{valid});
    elements.drop(scores, column, kMaskedScore);
#pragma unroll
    for (int j = 0; j < kColumns / 8; ++j) {
        const float2 shift = load_shared_float2(lane_shift + j * 32);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float column_shift = i % 2 == 0 ? shift.x : shift.y;
            scores[j][i] = probability(scores[j][i], column_shift);
        }
    }
}

// P^T becomes dS^T.
SPION_DEVICE void to_score_gradients(float (&scores)[kColumns / 8][4],
                                     const ScoreSlopes<kColumns / 8>& slopes, const Tiles& tiles,
                                     int warp_row, int column, const StepElements<true>& elements) {
    const Stationary<false> value(tiles.value, warp_row);
    const unsigned lane_delta =
        tiles.statistics + (kStreamedRows + column + lane_index() % 4 * 2) * 4;
    float gradient[kColumns / 8][4];
    const auto kept = elements.template kept<kColumns / 8>(column);
#pragma unroll
    for (int j = 0; j < kColumns / 8; ++j) {
        const float2 delta = load_shared_float2(lane_delta + j * 32);
#pragma unroll
        for (int i = 0; i < 4; ++i) gradient[j][i] = kept.start(i % 2 == 0 ? delta.x : delta.y);
    }
    WarpMma::multiply_transposed(gradient, value, tiles.query + kTileBytes, column);
#pragma unroll
    for (int j = 0; j < kColumns / 8; ++j) {
        float2 delta = {};
        if constexpr (kDrops) delta = load_shared_float2(lane_delta + j * 32);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            scores[j][i] =
                slopes.gradient(j, i, scores[j][i],
                                kept.finish(j, i, gradient[j][i], i % 2 == 0 ? delta.x : delta.y));
        }
    }
}

// One result, dK if kOfKey and else dV, from all `walked` steps of the walk, once for each member.
// `copy` starts a step's rows, `arrived` turns their LSE into what is subtracted, as in
// attention_key_value_gradient.cuh. The stationary rows are to be the first copies of the caller.
template <bool kOfKey, typename Copy, typename Arrived>
SPION_DEVICE void sum_gradient(float (&sum)[kHeadTiles][4], Tiles tiles, int warp_row, int rows,
                               int walked, const SpionAttentionArguments& args,
                               const WorkItem& item, const StepElements<true>& elements,
                               const Copy& copy, const Arrived& arrived) {
    const int steps = kMembers * walked;
    const unsigned first_query = tiles.query, first_statistics = tiles.statistics;
    begin_steps(steps, copy);
    wait_first();
    __syncwarp();
    set_zero(sum);
    for (int step = 0; step < steps; ++step) {
        const MemberStep at = member_step(step, walked);
        const int walk_step = at.step;
        const StepElements<true> here =
            elements.at(walk_step).of_member(args, item.batch, item.head, at.member);
        const int valid = rows - walk_step * kStreamedRows;
        const int buffer = await_step(step, steps, copy, arrived);
        tiles.query = first_query + buffer * 2 * kTileBytes;
        tiles.statistics = first_statistics + buffer * kStatisticsBytes;
#pragma unroll 1
        for (int column = 0; column < kStreamedRows && column < valid; column += kColumns) {
            float scores[kColumns / 8][4];
            ScoreSlopes<kColumns / 8> slopes;
            compute_probabilities(scores, slopes, tiles, warp_row, column, valid - column, here);
            if constexpr (kOfKey) {
                to_score_gradients(scores, slopes, tiles, warp_row, column, here);
                WarpMma::multiply(sum, scores, tiles.query, column);
            } else {
                here.template kept<kColumns / 8>(column).drop(scores);
                WarpMma::multiply(sum, scores, tiles.query + kTileBytes, column);
            }
        }
    }
    cp_async_wait_group<0>();
}

// The warp's result times `factor` to global memory. What rows from `padded` on have gathered is
// dropped by selection: those of padded keys need not even be finite. Rows from `end` on are not the
// sample's.
template <int kChunks>
SPION_DEVICE void store_gradient(unsigned tile, int warp_row, float (&sum)[kHeadTiles][4],
                                 float factor, const RowsOf<kChunks>& target, int first, int padded,
                                 int end) {
    zero_rows_from(padded, sum);
    const float factors[2] = {factor, factor};
    store_warp_rows(tile, warp_row, sum, factors, target, first, end);
}

extern "C" __global__ void __launch_bounds__(kThreads, kResidentBlocks)
    attention_key_value_gradient(const __grid_constant__ SpionAttentionArguments args) {
    const WorkItem item = work_item(args, blockIdx.x);
    const int limit = key_limit(args, item.batch);
    Walk walk = open_walk(args, item.order_index);
    const int warp_row = 16 * warp_index();
    const int padded = limit - item.first_row - warp_row;
    const unsigned start = shared_memory_start();
    const Tiles tiles{start, start + kStationaryBytes, start + 2 * kStationaryBytes,
                      start + 2 * kStationaryBytes + kStagesBytes};
    const Rows queries = rows_of(args, args.q, item.batch, query_head(item.head, 0));
    const ValueRows output_gradients =
        value_rows_of(args, args.d_o, item.batch, query_head(item.head, 0));

    copy_warp_rows(tiles.key, warp_row, key_rows_of(args, args.k, item.batch, key_head(item.head)),
                   item.first_row, limit);
    measure_walk(walk, clip_walk<true>(args, walk, item.batch, item.first_row,
                                       query_limit(args, item.batch)));
    const StepElements<true> elements = step_elements<true>(
        args, walk.gather_blocks, walk.listed, item.batch, item.head, item.first_row + warp_row);
    const int walked = item.first_row < limit ? walk.steps() : 0;
    const auto copy = [&](int step, int buffer) {
        const unsigned tile = tiles.query + buffer * 2 * kTileBytes;
        const MemberStep at = member_step(step, walked);
        const WorkItem streamed = member_item(item, at.member);
        copy_step(walk, at.step, tile, rows_further(queries, args.q, at.member), tile + kTileBytes,
                  rows_further(output_gradients, args.d_o, at.member));
        copy_statistics(walk, at.step, tiles.statistics + buffer * kStatisticsBytes,
                        args.lse + streamed.row, args.delta + streamed.row);
    };
    const auto arrived = [&](int buffer) {
        shift_statistics(tiles.statistics + buffer * kStatisticsBytes);
    };

    float sum[kHeadTiles][4];
    sum_gradient<false>(sum, tiles, warp_row, walk.valid, walked, args, item, elements, copy,
                        arrived);
    store_gradient(tiles.value, warp_row, sum, kept_factor(args),
                   key_rows_of<ValueRows>(args, args.d_v, item.batch, key_head(item.head)),
                   item.first_row, padded, key_count(args, item.batch));

    // Every warp is done with the stages, every lane of this one with the rows that V takes.
    __syncthreads();
    walk.window = read_window(walk, 0);
    copy_warp_rows(tiles.value, warp_row,
                   key_rows_of<ValueRows>(args, args.v, item.batch, key_head(item.head)),
                   item.first_row, limit);
    sum_gradient<true>(sum, tiles, warp_row, walk.valid, walked, args, item, elements, copy,
                       arrived);
    // A number that the compiler does not know: else it would keep the addresses of dV's staging
    // for dK's, where there are no registers for them.
    const int staging_row = __shfl_sync(0xFFFFFFFFU, warp_row, 0);
    store_gradient(tiles.key, staging_row, sum, kScale,
                   key_rows_of(args, args.d_k, item.batch, key_head(item.head)), item.first_row,
                   padded, key_count(args, item.batch));
}
