// dQ and delta of one query tile.
//   delta [16]       = rowsum(dO * O)                a warp's 16 rows
//   S [16, n]        = Q [16, D] * K [n, D]^T        n = kColumns keys at a time
//   P [16, n]        = exp(kScale * S - LSE)
//   dS [16, n]       = P * (dO [16, D] * V [n, D]^T - delta)
//   dbias            += dS, by distance              with a bias, relative_bias.cuh
//   dQ [16, D]      += dS [16, n] * K [n, D]         at the end times kScale
// A thread block has one query tile [kStationaryRows, D] of one (b, h); key and value rows stream
// past it as in attention_forward.cuh.
#include "kernels/cuda/common/attention_walk.cuh"
#include "kernels/cuda/common/online_softmax.cuh"
#include "kernels/cuda/common/packed_rows.cuh"
#include "kernels/cuda/sm80/contract.cuh"
#include "kernels/cuda/sm80/warp_mma.cuh"

// Shared memory: Q, later dQ, and dO [kStationaryRows, D]; delta [kStationaryRows] fp32; then a
// stage each: K, V [kStreamedRows, D]. Every part is a multiple of 64 bytes; tiles of 128 come
// first.
enum : int { kStagesBytes = kStages * 2 * kTileBytes };
SPION_REQUIRE_SHARED_BYTES(2 * kStationaryBytes + kStagesBytes + kStationaryRows * 4);

// For delta the lanes that share a row of O and dO add up, so that there must be a power of 2 of
// them: those that copy a row, or, where they are no power of 2, a pair of lanes takes turns along
// each of the warp's rows.
enum : bool { kDeltaAsCopied = 32 % kRowChunks == 0 };

SPION_DEVICE int delta_row() {
    return lane_index() / 2;
}
SPION_DEVICE int delta_chunk(int i) {
    return 2 * i + lane_index() % 2;
}

// The warp's chunks of O, in the order of copy_warp_rows or of delta_chunk; zeros from row `limit`
// on.
struct OutputChunks {
    uint4 chunks[kWarpCopies];
    __device__ __forceinline__ OutputChunks(const ValueRows& source, int first, int limit) {
#pragma unroll
        for (int i = 0; i < kWarpCopies; ++i) {
            const int row = kDeltaAsCopied ? copied_row<kRowChunks, 32>(first, i, lane_index())
                                           : first + delta_row();
            const int chunk =
                kDeltaAsCopied ? copied_chunk<kRowChunks, 32>(i, lane_index()) : delta_chunk(i);
            chunks[i] = make_uint4(0, 0, 0, 0);
            if (row < limit && source.has(chunk)) chunks[i] = *(const uint4*)source.at(row, chunk);
        }
    }
};

// delta of the warp's rows, to shared memory [16] and, below `limit`, to global memory [L].
SPION_DEVICE void delta_as_copied(unsigned shared_delta, float* delta, const OutputChunks& output,
                                  unsigned output_gradient_tile, int warp_row, int first,
                                  int limit) {
#pragma unroll
    for (int i = 0; i < kWarpCopies; ++i) {
        const int row = i * (32 / kRowChunks) + lane_index() / kRowChunks;
        const int chunk = lane_index() % kRowChunks;
        const uint4 gradient =
            load_shared_16(output_gradient_tile + chunk_offset<kRowChunks>(warp_row + row, chunk));
        float sum = dot_chunk<Element>(gradient, output.chunks[i]);
#pragma unroll
        for (int lanes = 1; lanes < kRowChunks; lanes *= 2) {
            sum += __shfl_xor_sync(0xFFFFFFFFU, sum, lanes);
        }
        if (chunk == 0) {
            store_shared_float(shared_delta + row * 4, sum);
            if (first + row < limit) delta[first + row] = sum;
        }
    }
}

// The same sum, added up by pairs of lanes.
SPION_DEVICE void delta_by_pairs(unsigned shared_delta, float* delta, const OutputChunks& output,
                                 unsigned output_gradient_tile, int warp_row, int first,
                                 int limit) {
    const int row = delta_row();
    float sum = 0.0F;
#pragma unroll
    for (int i = 0; i < kWarpCopies; ++i) {
        const int offset = chunk_offset<kRowChunks>(warp_row + row, delta_chunk(i));
        sum += dot_chunk<Element>(load_shared_16(output_gradient_tile + offset), output.chunks[i]);
    }
    sum += __shfl_xor_sync(0xFFFFFFFFU, sum, 1);
    if (lane_index() % 2 == 0) {
        store_shared_float(shared_delta + row * 4, sum);
        if (first + row < limit) delta[first + row] = sum;
    }
}

// dQ += dS K for the keys at rows [column, + kColumns) of the key and value tiles, of which the
// first `valid` count, the mask allowing. shift, delta: of rows g and g + 8.
SPION_DEVICE void add_query_gradient(float (&query_gradient)[kHeadTiles][4],
                                     const Stationary<kHeldInRegisters>& query,
                                     const Stationary<kHeldInRegisters>& output_gradient,
                                     unsigned key_tile, int column, int valid,
                                     const float (&shift)[2], const float (&delta)[2],
                                     const StepElements<false>& elements,
                                     BiasGradient& bias_gradient) {
    float scores[kColumns / 8][4], gradient[kColumns / 8][4];
    float of_bias[kRelativeBias > 0 ? kColumns / 8 : 1][4];  // dS before a cap's slope
    set_zero(scores);
    WarpMma::multiply_transposed(scores, query, key_tile, column);
    const auto kept = elements.template kept<kColumns / 8>(column);
#pragma unroll
    for (int j = 0; j < kColumns / 8; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) gradient[j][i] = kept.start(delta[i / 2]);
    }
    WarpMma::multiply_transposed(gradient, output_gradient, key_tile + kTileBytes, column);
    change_scores(scores);
    ScoreSlopes<kColumns / 8> slopes;
    slopes.take(scores);
    elements.add_position_terms(scores, slopes, column);
    mask_scores(scores, ScoreMask<>{valid});
    elements.drop(scores, column, kMaskedScore);
#pragma unroll
    for (int j = 0; j < kColumns / 8; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float p = probability(scores[j][i], shift[i / 2]);
            const float difference = kept.finish(j, i, gradient[j][i], delta[i / 2]);
            if constexpr (kRelativeBias > 0) of_bias[j][i] = difference * p;
            gradient[j][i] = slopes.gradient(j, i, p, difference);
        }
    }
    if constexpr (kRelativeBias > 0) elements.add_bias_gradient(bias_gradient, of_bias, column);
    WarpMma::multiply(query_gradient, gradient, key_tile, column);
}

extern "C" __global__ void __launch_bounds__(kThreads, kResidentBlocks)
    attention_query_gradient(const __grid_constant__ SpionAttentionArguments args) {
    const WorkItem item = work_item(args, blockIdx.x);
    const int limit = key_limit(args, item.batch);
    Walk walk = open_walk(args, item.order_index);
    const int warp_row = 16 * warp_index();
    const int first_row = item.first_row + warp_row;
    const unsigned query_tile = shared_memory_start();
    const unsigned output_gradient_tile = query_tile + kStationaryBytes;
    const unsigned stage_tiles = output_gradient_tile + kStationaryBytes;
    const unsigned shared_delta = stage_tiles + kStagesBytes + warp_row * 4;
    const Rows keys = key_rows_of(args, args.k, item.batch, key_head(item.head));
    const ValueRows values = key_rows_of<ValueRows>(args, args.v, item.batch, key_head(item.head));

    copy_warp_rows(query_tile, warp_row, rows_of(args, args.q, item.batch, item.head),
                   item.first_row, query_limit(args, item.batch));
    copy_warp_rows(output_gradient_tile, warp_row,
                   value_rows_of(args, args.d_o, item.batch, item.head), item.first_row,
                   query_limit(args, item.batch));
    measure_walk(walk, clip_walk<false>(args, walk, item.batch, item.first_row, limit));
    const int steps = walk.steps();
    const auto copy = [&](int step, int buffer) {
        const unsigned tile = stage_tiles + buffer * 2 * kTileBytes;
        copy_step(walk, step, tile, keys, tile + kTileBytes, values);
    };
    begin_steps(steps, copy);
    GatherMask gather_mask = open_gather_mask(args, walk);

    // Rows g and g + 8 of the warp; rows from L on get the shift that makes every probability 0.
    float shift[2], delta[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int row = first_row + lane_index() / 4 + 8 * half;
        shift[half] = row < query_limit(args, item.batch)
                          ? probability_shift(args.lse[item.row + row])
                          : kInfinity;
    }
    const OutputChunks output(value_rows_of(args, args.o, item.batch, item.head), first_row,
                              query_limit(args, item.batch));
    wait_first();
    __syncwarp();
    if constexpr (kDeltaAsCopied) {
        delta_as_copied(shared_delta, args.delta + item.row, output, output_gradient_tile, warp_row,
                        first_row, query_limit(args, item.batch));
    } else {
        delta_by_pairs(shared_delta, args.delta + item.row, output, output_gradient_tile, warp_row,
                       first_row, query_limit(args, item.batch));
    }
    __syncwarp();
    delta[0] = load_shared_float(shared_delta + lane_index() / 4 * 4);
    delta[1] = load_shared_float(shared_delta + lane_index() / 4 * 4 + 32);

    const Stationary<kHeldInRegisters> query(query_tile, warp_row);
    const Stationary<kHeldInRegisters> output_gradient(output_gradient_tile, warp_row);
    float query_gradient[kHeadTiles][4];
    set_zero(query_gradient);
    const StepElements<false> elements = step_elements<false>(args, walk.gather_blocks, walk.listed,
                                                              item.batch, item.head, first_row);
    BiasGradient of_bias = bias_gradient(args, item.batch, item.head, first_row);
    of_bias.start();

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
            add_query_gradient(query_gradient, query, output_gradient, key_tile, column,
                               valid - column, shift, delta, elements.at(step), of_bias);
        }
    }

    of_bias.finish();
    cp_async_wait_group<0>();
    const float factor[2] = {kScale, kScale};
    store_warp_rows(query_tile, warp_row, query_gradient, factor,
                    rows_of(args, args.d_q, item.batch, item.head), item.first_row,
                    query_limit(args, item.batch));
}
