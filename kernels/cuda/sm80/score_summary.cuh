// The pooled map of discovery, one tile of the L x L map a thread block
// (kernels/attention_arguments.h).
//   S [16, kTile]   = Q [16, D] * K [kTile, D]^T       a warp's 16 rows of the tile, every (b, h)
//   A [16, kTile]  += exp(kScale * S - LSE)            kept in registers over all (b, h)
// then A / (B * H) is written to `scores`, if asked for, and summed with the weights of discovery
// (compiler/discovery/score_summary.h) into 7 numbers. Sums run in a fixed order.
//
// Beside what common/contract.cuh lists the generated text says kBlock, the edge of a pattern
// block, kTile, rows and columns of a work item, and kFilter, the length of the diagonal filter; it
// says nothing of stationary and streamed rows.
#include "kernels/attention_arguments.h"
#include "kernels/cuda/common/contract.cuh"
#include "kernels/cuda/common/heads.cuh"
#include "kernels/cuda/common/mask.cuh"
#include "kernels/cuda/common/pipeline.cuh"
#include "kernels/cuda/common/tile_copy.cuh"
#include "kernels/cuda/sm80/warp_mma.cuh"

#ifndef SPION_SAMPLE
static_assert(kRelativeBias == 0, "the summary's arguments have no bias");
#endif

enum : int { kTileBytes = kTile * kRowBytes };
enum : int { kTilesPerSide = (kLength + kTile - 1) / kTile };
enum : int { kBlocksPerSide = (kLength + kBlock - 1) / kBlock };
enum : int { kNeighbours = 7 };

// Shared memory: a stage each: Q, K [kTile, D]. At the end the warps' sums [kWarps, 7] fp32 lie
// there.
SPION_REQUIRE_SHARED_BYTES(kStages * 2 * kTileBytes);
static_assert(kTile == 16 * kWarps && kBlock % kTile == 0);
static_assert(kSharedBytes >= kWarps * kNeighbours * 4);

// Offset in blocks of neighbour i, in the order of kNeighbours in score_summary.h.
SPION_DEVICE constexpr int neighbour_row(int i) {
    return i == 1 || i == 3 ? 1 : i == 4 || i == 6 ? -1 : 0;
}
SPION_DEVICE constexpr int neighbour_column(int i) {
    return i == 2 || i == 3 ? 1 : i == 5 || i == 6 ? -1 : 0;
}

// Rows of block `index`; 0 if there is no such block.
SPION_DEVICE int block_rows(int index) {
    if (index < 0 || index >= kBlocksPerSide) return 0;
    return min(kBlock, kLength - index * kBlock);
}

// Number of f in [-(F/2), F - 1 - F/2] with 0 <= r - f < rows and 0 <= c - f < columns, F =
// kFilter.
SPION_DEVICE int diagonal_weight(int r, int c, int rows, int columns) {
    const int first = max(-(kFilter / 2), max(r - rows, c - columns) + 1);
    const int last = min(kFilter - 1 - kFilter / 2, min(r, c));
    return max(last - first + 1, 0);
}

// What the loop over (b, h) keeps of one head's rows.
struct HeadRows {
    Rows query, key;
    const float* lse;
    int limit;
};

SPION_DEVICE HeadRows head_rows(const SpionAttentionArguments& args, int batch_head) {
    const int batch = batch_head / kHeads, head = batch_head % kHeads;
    const int limit = key_limit(args, batch);
    return {rows_of(args, args.q, batch, head), key_rows_of(args, args.k, batch, key_head(head)),
            args.lse + (long long)batch_head * kLength, limit};
}

SPION_DEVICE float row_shift(const HeadRows& rows, int row) {
    return row < kLength ? probability_shift(rows.lse[row]) : kInfinity;
}

// The tile's mean probabilities to scores [L, L]: a lane's elements as in an accumulator.
SPION_DEVICE void write_scores(float* scores, const float (&mean)[kTile / 8][4], int row,
                               int column) {
#pragma unroll
    for (int j = 0; j < kTile / 8; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int r = row + 8 * (i / 2), c = column + 8 * j + i % 2;
            if (r < kLength && c < kLength) scores[(long long)r * kLength + c] = mean[j][i];
        }
    }
}

// This lane's weighted sum for one neighbour of the block that holds (row, column), its first
// element.
SPION_DEVICE float weighted_sum(const float (&mean)[kTile / 8][4], int row, int column,
                                int neighbour) {
    const int block_row = row / kBlock + neighbour_row(neighbour);
    const int block_column = column / kBlock + neighbour_column(neighbour);
    const int rows = block_rows(block_row), columns = block_rows(block_column);
    float sum = 0.0F;
    if (rows == 0 || columns == 0) return sum;
    const int r = row - block_row * kBlock, c = column - block_column * kBlock;
#pragma unroll
    for (int j = 0; j < kTile / 8; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int weight = diagonal_weight(r + 8 * (i / 2), c + 8 * j + i % 2, rows, columns);
            sum = __fmaf_rn((float)weight, mean[j][i], sum);
        }
    }
    return sum;
}

// Adds up each neighbour's sums over the block and writes them to summary [7].
SPION_DEVICE void write_summary(float* summary, const float (&mean)[kTile / 8][4], int row,
                                int column) {
    const unsigned sums = shared_memory_start();
    __syncthreads();
#pragma unroll 1
    for (int neighbour = 0; neighbour < kNeighbours; ++neighbour) {
        float sum = weighted_sum(mean, row, column, neighbour);
#pragma unroll
        for (int lanes = 1; lanes < 32; lanes *= 2) {
            sum += __shfl_xor_sync(0xFFFFFFFFU, sum, lanes);
        }
        if (lane_index() == 0) {
            store_shared_float(sums + (warp_index() * kNeighbours + neighbour) * 4, sum);
        }
    }
    __syncthreads();
    if (threadIdx.x < kNeighbours) {
        float total = 0.0F;
        for (int warp = 0; warp < kWarps; ++warp) {
            total += load_shared_float(sums + (warp * kNeighbours + (int)threadIdx.x) * 4);
        }
        summary[threadIdx.x] = total;
    }
}

// A += exp(kScale * Q K^T - LSE) of one (b, h), over its first `valid` columns.
SPION_DEVICE void add_probabilities(float (&sum)[kTile / 8][4], unsigned query_tile, int warp_row,
                                    int valid, const float (&shift)[2],
                                    const ElementMask<false>& mask, const HeadScores& head,
                                    int first_key) {
    float scores[kTile / 8][4];
    set_zero(scores);
    WarpMma::multiply_transposed(scores, Stationary<false>(query_tile, warp_row),
                                 query_tile + kTileBytes, 0);
    change_scores(scores);
    head.add_position_terms<false>(scores, mask.warp_row,
                                   [&](int n) { return first_key + 16 * n; });
    mask_scores(scores, ScoreMask<>{valid});
    mask_elements<1, 0, kTile / 8>(
        scores, mask, [&](int) { return first_key; }, kMaskedScore);
#pragma unroll
    for (int j = 0; j < kTile / 8; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            sum[j][i] += probability(scores[j][i], shift[i / 2]);
        }
    }
}

extern "C" __global__ void __launch_bounds__(kThreads, kResidentBlocks)
    score_summary(const __grid_constant__ SpionAttentionArguments args) {
    const int tile_row = (int)(blockIdx.x / kTilesPerSide) * kTile;
    const int tile_column = (int)(blockIdx.x % kTilesPerSide) * kTile;
    const int warp_row = 16 * warp_index();
    const int row = tile_row + warp_row + lane_index() / 4;
    const int batch_heads = args.batch * kHeads;
    const unsigned tiles = shared_memory_start();

    const auto copy = [&](int batch_head, int buffer) {
        const unsigned query_tile = tiles + buffer * 2 * kTileBytes;
        const HeadRows rows = head_rows(args, batch_head);
        copy_warp_rows(query_tile, warp_row, rows.query, tile_row, kLength);
        copy_warp_rows(query_tile + kTileBytes, warp_row, rows.key, tile_column, rows.limit);
    };
    begin_steps(batch_heads, copy);

    float mean[kTile / 8][4];
    set_zero(mean);
    float shift[2], next_shift[2];
    const HeadRows first = head_rows(args, 0);
    next_shift[0] = row_shift(first, row);
    next_shift[1] = row_shift(first, row + 8);
    for (int batch_head = 0; batch_head < batch_heads; ++batch_head) {
        const int buffer = await_step(batch_head, batch_heads, copy, [](int) {});
        const unsigned query_tile = tiles + buffer * 2 * kTileBytes;
        const int valid = head_rows(args, batch_head).limit - tile_column;
        shift[0] = next_shift[0];
        shift[1] = next_shift[1];
        if (batch_head + 1 < batch_heads) {
            const HeadRows next = head_rows(args, batch_head + 1);
            next_shift[0] = row_shift(next, row);
            next_shift[1] = row_shift(next, row + 8);
        }
        if (valid <= 0) continue;
        add_probabilities(mean, query_tile, warp_row, valid, shift,
                          element_mask<false>(args, batch_head / kHeads, tile_row + warp_row),
                          head_scores(args, batch_head / kHeads, batch_head % kHeads), tile_column);
    }
    cp_async_wait_group<0>();

    const float share = 1.0F / (float)batch_heads;
#pragma unroll
    for (int j = 0; j < kTile / 8; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) mean[j][i] *= share;
    }
    const int column = tile_column + lane_index() % 4 * 2;
    if (args.scores != nullptr) write_scores(args.scores, mean, row, column);
    write_summary(args.summary + (long long)blockIdx.x * kNeighbours, mean, row, column);
}
