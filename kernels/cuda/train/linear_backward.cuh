// The backward pass of y = x W^T + b in one pass over the gradient of y, with W [kOut, kIn]:
//     d_x = d_y W     d_W = d_y^T x     d_b = column sums of d_y
// and, where y went on through dropout(gelu(y)) (kGelu), the gradient of that first. A work item
// walks tiles of 64 rows: a tile and the next one in shared memory, W beside them, its share of d_W
// and d_b in registers until the end.
#pragma once

#include "kernels/cuda/common/ptx.cuh"
#include "kernels/cuda/common/tile_layout.cuh"
#include "kernels/cuda/train/contract.cuh"
#include "kernels/cuda/train/gelu_terms.cuh"
#include "kernels/cuda/train/weights.cuh"
#include "kernels/random.h"
#include "kernels/train_arguments.h"

enum : int { kTileRows = kSpionLinearTileRows };
enum : int { kOutChunks = kOut / 8, kInChunks = kIn / 8 };  // of 16 bytes, in a row
enum : int { kOutTileBytes = kTileRows * kOut * 2, kInTileBytes = kTileRows * kIn * 2 };
enum : int { kStageBytes = (kGelu ? 2 : 1) * kOutTileBytes + kInTileBytes };
enum : int { kWeightBytes = kOut * kIn * 2 };

// Eight warps: four of them share the 64 rows (d_x) or the tiles of 16 outputs (d_W), two halves
// the columns of x.
enum : int { kOutTiles = kOut / 64 };  // of 16 outputs, a warp
enum : int { kInTiles = kIn / 16 };    // of 8 columns of x, a warp
static_assert(kThreads == 256 && kOut % 64 == 0 && kIn % 64 == 0, "shapes that tiles cover");

struct Stage {
    unsigned d_y, x, hidden;  // shared addresses of tiles [64, kOut], [64, kIn], [64, kOut]
};

SPION_DEVICE Stage stage_of(int index) {
    const unsigned d_y = shared_memory_start() + kWeightBytes + (index % 2) * kStageBytes;
    return {d_y, d_y + kOutTileBytes, d_y + kOutTileBytes + kInTileBytes};
}

// Rows [first, first + 64) below `end` of a tensor; the others become zeros.
template <int kChunks>
SPION_DEVICE void load_tile(unsigned tile, const void* source, long long first, long long end) {
    static_assert(kTileRows * kChunks % kThreads == 0);
    const uint4* octets = (const uint4*)source + first * kChunks + threadIdx.x;
    const int rows = (int)(end - first < kTileRows ? end - first : kTileRows);
#pragma unroll
    for (int i = 0; i < kTileRows * kChunks / kThreads; ++i) {
        const int index = (int)threadIdx.x + i * kThreads, row = index / kChunks;
        cp_async_16(tile + chunk_offset<kChunks>(row, index % kChunks), octets + i * kThreads,
                    row < rows);
    }
}

SPION_DEVICE void load_stage(const SpionLinearBackwardArguments& args, const Stage& stage,
                             long long first, long long end) {
    load_tile<kOutChunks>(stage.d_y, args.d_y, first, end);
    load_tile<kInChunks>(stage.x, args.x, first, end);
    if constexpr (kGelu) load_tile<kOutChunks>(stage.hidden, args.hidden, first, end);
}

// Two neighbouring elements of dropout(d_y) * gelu'(x).
SPION_DEVICE unsigned gelu_gradient(unsigned d_y, unsigned x, float keep_low, float keep_high) {
    constexpr float kInverseRootTwoPi = 0.39894228040143268F;
    const float x_low = Element::low(x), x_high = Element::high(x);
    const NormalTerms low = normal_terms(x_low), high = normal_terms(x_high);
    const float slope_low = low.distribution + x_low * (kInverseRootTwoPi * low.bell);
    const float slope_high = high.distribution + x_high * (kInverseRootTwoPi * high.bell);
    return Element::pack(slope_low * keep_low * Element::low(d_y),
                         slope_high * keep_high * Element::high(d_y));
}

// The tile of d_y, which is the gradient of dropout(gelu(hidden)), becomes that of hidden.
SPION_DEVICE void through_gelu(const SpionLinearBackwardArguments& args, const Stage& stage,
                               long long first) {
    constexpr unsigned kThreshold = spion_dropout_threshold(kDropout);
    constexpr float kKept = 1.0F / (1.0F - kDropout);
    const SpionDropout dropout = spion_dropout_now(args.dropout);
    for (int i = (int)threadIdx.x; i < kTileRows * kOutChunks; i += kThreads) {
        const int row = i / kOutChunks, chunk = i % kOutChunks;
        const unsigned offset = chunk_offset<kOutChunks>(row, chunk);
        const uint4 d_y = load_shared_16(stage.d_y + offset);
        const uint4 x = load_shared_16(stage.hidden + offset);
        float keep[8] = {1, 1, 1, 1, 1, 1, 1, 1};
        if (kDropout > 0.0F && dropout.enabled != 0) {
            const SpionRandomBits bits = spion_random_bits(
                (first + row) * kOutChunks + chunk, dropout.stream, dropout.step, dropout.seed);
#pragma unroll
            for (int e = 0; e < 8; ++e) keep[e] = spion_keep(bits, e, kThreshold) ? kKept : 0.0F;
        }
        store_shared_16(stage.d_y + offset,
                        make_uint4(gelu_gradient(d_y.x, x.x, keep[0], keep[1]),
                                   gelu_gradient(d_y.y, x.y, keep[2], keep[3]),
                                   gelu_gradient(d_y.z, x.z, keep[4], keep[5]),
                                   gelu_gradient(d_y.w, x.w, keep[6], keep[7])));
    }
}

// d_x of the tile's rows below `end`: a warp makes 16 rows of half the columns, 32 at a time.
SPION_DEVICE void input_gradient(const SpionLinearBackwardArguments& args, const Stage& stage,
                                 int warp, int lane, long long first, long long end) {
    const LaneChunk lane_chunk = lane_chunk_by_rows(lane);
    const int rows = warp % 4 * 16, g = lane / 4, t = lane % 4;
#pragma unroll 1
    for (int group = 0; group < kIn / 64; ++group) {
        const int chunk = (warp / 4 * (kIn / 64) + group) * 4;
        float acc[4][4] = {};
#pragma unroll 4
        for (int k = 0; k < kOut / 16; ++k) {
            unsigned a[4], b[4];
            ldmatrix_x4(a, stage.d_y + chunk_offset<kOutChunks>(rows + lane_chunk.row,
                                                                2 * k + lane_chunk.chunk));
#pragma unroll
            for (int pair = 0; pair < 2; ++pair) {
                ldmatrix_x4_trans(b,
                                  shared_memory_start() +
                                      chunk_offset<kInChunks>(16 * k + lane_chunk.row,
                                                              chunk + 2 * pair + lane_chunk.chunk));
                Element::mma(acc[2 * pair], a, b[0], b[1]);
                Element::mma(acc[2 * pair + 1], a, b[2], b[3]);
            }
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const long long row = first + rows + g + 8 * half;
            store_global_16((uint4*)args.d_x + row * kInChunks + chunk + t,
                            make_uint4(Element::pack(acc[0][2 * half], acc[0][2 * half + 1]),
                                       Element::pack(acc[1][2 * half], acc[1][2 * half + 1]),
                                       Element::pack(acc[2][2 * half], acc[2][2 * half + 1]),
                                       Element::pack(acc[3][2 * half], acc[3][2 * half + 1])),
                            row < end);
        }
    }
}

// A warp's share of d_W, fragments of [16, 8], and of d_b: one fragment, tile i in its column i.
struct Shares {
    float weight[kOutTiles][kInTiles][4];
    float bias[4];
};
static_assert(kOutTiles <= 8, "a column for each tile");

// The warp's first output of its tile i, and its first column of x.
SPION_DEVICE int first_output(int warp, int i) {
    return 16 * (warp % 4 + 4 * i);
}
SPION_DEVICE int first_chunk(int warp) {
    return warp / 4 * kInTiles;
}

// Adds the tile's 64 rows.
SPION_DEVICE void weight_gradient(const Stage& stage, int warp, int lane, Shares& shares) {
    const unsigned ones = Element::pack(1.0F, 1.0F);
    const LaneChunk by_rows = lane_chunk_by_rows(lane), by_chunks = lane_chunk_by_chunks(lane);
#pragma unroll 2
    for (int k = 0; k < kTileRows / 16; ++k) {
        unsigned a[kOutTiles][4], b[4];
#pragma unroll
        for (int i = 0; i < kOutTiles; ++i) {
            ldmatrix_x4_trans(a[i], stage.d_y + chunk_offset<kOutChunks>(
                                                    16 * k + by_chunks.row,
                                                    first_output(warp, i) / 8 + by_chunks.chunk));
            const unsigned column = lane / 4 == i ? ones : 0;
            if (warp < 4) Element::mma(shares.bias, a[i], column, column);
        }
#pragma unroll
        for (int n = 0; n < kInTiles; n += 2) {
            ldmatrix_x4_trans(
                b, stage.x + chunk_offset<kInChunks>(16 * k + by_rows.row,
                                                     first_chunk(warp) + n + by_rows.chunk));
#pragma unroll
            for (int i = 0; i < kOutTiles; ++i) {
                Element::mma(shares.weight[i][n], a[i], b[0], b[1]);
                Element::mma(shares.weight[i][n + 1], a[i], b[2], b[3]);
            }
        }
    }
}

// partials[item]: d_W [kOut, kIn], then d_b [kOut].
SPION_DEVICE void store_shares(const Shares& shares, int warp, int lane, float* out) {
    const int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int i = 0; i < kOutTiles; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int output = first_output(warp, i) + g + 8 * half;
#pragma unroll
            for (int n = 0; n < kInTiles; ++n) {
                *(float2*)(out + output * kIn + 8 * (first_chunk(warp) + n) + 2 * t) =
                    make_float2(shares.weight[i][n][2 * half], shares.weight[i][n][2 * half + 1]);
            }
            if (warp < 4 && t == i / 2) {
                out[kOut * kIn + output] = shares.bias[2 * half + i % 2];
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(kThreads, 2)
    linear_backward(const __grid_constant__ SpionLinearBackwardArguments args) {
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    const long long begin = blockIdx.x * args.rows_per_item;
    const long long end =
        begin + args.rows_per_item < args.rows ? begin + args.rows_per_item : args.rows;
    const int tiles = (int)((end - begin + kTileRows - 1) / kTileRows);
    Shares shares = {};
    load_stage(args, stage_of(0), begin, end);
    cp_async_commit_group();
    Weights<kOut, kInChunks, false>(args.weight).store(shared_memory_start());
    for (int tile = 0; tile < tiles; ++tile) {
        const Stage stage = stage_of(tile);
        const long long first = begin + (long long)tile * kTileRows;
        if (tile + 1 < tiles) load_stage(args, stage_of(tile + 1), first + kTileRows, end);
        cp_async_commit_group();
        cp_async_wait_group<1>();
        __syncthreads();
        if constexpr (kGelu) {
            through_gelu(args, stage, first);
            __syncthreads();
        }
        input_gradient(args, stage, warp, lane, first, end);
        weight_gradient(stage, warp, lane, shares);
        __syncthreads();  // before the stage is filled again
    }
    store_shares(shares, warp, lane, args.partials + (long long)blockIdx.x * (kOut * kIn + kOut));
}
