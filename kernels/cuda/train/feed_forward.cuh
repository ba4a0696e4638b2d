// hidden = x W1^T + b1, gated = dropout(gelu(hidden)), y = gated W2^T + b2, in one pass: hidden and
// gated are written for the backward pass and read by nobody here. W1 [kHidden, kChannels] and
// W2 [kChannels, kHidden] lie in shared memory, tiles of 64 rows of x stream past, two at a time.
#pragma once

#include "kernels/cuda/common/ptx.cuh"
#include "kernels/cuda/common/tile_layout.cuh"
#include "kernels/cuda/train/contract.cuh"
#include "kernels/cuda/train/gelu_terms.cuh"
#include "kernels/random.h"
#include "kernels/train_arguments.h"

enum : int { kTileRows = kSpionLinearTileRows };
enum : int { kNarrowChunks = kChannels / 8, kWideChunks = kHidden / 8 };  // of 16 bytes, in a row
enum : int { kWeightBytes = kChannels * kHidden * 2 };
enum : int { kNarrowTileBytes = kTileRows * kChannels * 2 };
static_assert(kThreads == 256 && kChannels % 64 == 0 && kHidden % 64 == 0, "tiles cover it all");

// Shared memory: W1, W2, gated [64, kHidden], x [64, kChannels] twice.
SPION_DEVICE unsigned weight1() {
    return shared_memory_start();
}
SPION_DEVICE unsigned weight2() {
    return weight1() + kWeightBytes;
}
SPION_DEVICE unsigned gated_tile() {
    return weight2() + kWeightBytes;
}
SPION_DEVICE unsigned x_tile(int index) {
    return gated_tile() + kTileRows * kHidden * 2 + index % 2 * kNarrowTileBytes;
}

SPION_DEVICE void load_x(const SpionFeedForwardArguments& args, int index, long long first,
                         long long end) {
    for (int i = (int)threadIdx.x; i < kTileRows * kNarrowChunks; i += kThreads) {
        const int row = i / kNarrowChunks, chunk = i % kNarrowChunks;
        cp_async_16(x_tile(index) + chunk_offset<kNarrowChunks>(row, chunk),
                    (const char*)args.x + ((first + row) * kNarrowChunks + chunk) * 16,
                    first + row < end);
    }
}

// Weights [kRows, 8 kChunks], their rows permuted within every 32 so that a lane's share of four
// result tiles of 8 columns is 8 columns in order: row 8 t + 2 j + e lies where column 2 t + e of
// tile j is expected.
template <int kRows, int kChunks>
SPION_DEVICE void load_weights(unsigned target, const void* source) {
    for (int i = (int)threadIdx.x; i < kRows * kChunks; i += kThreads) {
        const int row = i / kChunks, chunk = i % kChunks;
        const int place = row / 32 * 32 + row % 8 / 2 * 8 + row % 32 / 8 * 2 + row % 2;
        cp_async_16(target + chunk_offset<kChunks>(place, chunk), (const char*)source + i * 16,
                    true);
    }
}

// [16 rows from `row` of a tile] times rows [32 group, + 32) of weights, transposed. With g and t
// as in Element::mma, acc[j][2 h + e] is row g + 8 h, column 8 t + 2 j + e of the 32.
template <int kChunks>
SPION_DEVICE void multiply(float (&acc)[4][4], unsigned tile, int row, unsigned weights, int group,
                           int lane) {
    const LaneChunk by_rows = lane_chunk_by_rows(lane), by_chunks = lane_chunk_by_chunks(lane);
#pragma unroll 2
    for (int k = 0; k < kChunks / 2; ++k) {
        unsigned a[4], b[4];
        ldmatrix_x4(a, tile + chunk_offset<kChunks>(row + by_rows.row, 2 * k + by_rows.chunk));
#pragma unroll
        for (int pair = 0; pair < 2; ++pair) {
            ldmatrix_x4(b, weights + chunk_offset<kChunks>(32 * group + 16 * pair + by_chunks.row,
                                                           2 * k + by_chunks.chunk));
            Element::mma(acc[2 * pair], a, b[0], b[1]);
            Element::mma(acc[2 * pair + 1], a, b[2], b[3]);
        }
    }
}

// Row g + 8 half of the lane's 8 columns, the bias [8] added, as Elements.
SPION_DEVICE uint4 octet_of(const float (&acc)[4][4], int half, const float* bias) {
    unsigned word[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        word[j] =
            Element::pack(acc[j][2 * half] + bias[2 * j], acc[j][2 * half + 1] + bias[2 * j + 1]);
    }
    return make_uint4(word[0], word[1], word[2], word[3]);
}

SPION_DEVICE unsigned gelu_pair(unsigned x, float keep_low, float keep_high) {
    const float low = Element::low(x), high = Element::high(x);
    return Element::pack(low * normal_terms(low).distribution * keep_low,
                         high * normal_terms(high).distribution * keep_high);
}

// dropout(gelu(x)) of octet `index` of the tensor.
SPION_DEVICE uint4 gate(const SpionDropout& dropout, uint4 x, long long index) {
    constexpr unsigned kThreshold = spion_dropout_threshold(kDropout);
    constexpr float kKept = 1.0F / (1.0F - kDropout);
    float keep[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    if (kDropout > 0.0F && dropout.enabled != 0) {
        const SpionRandomBits bits =
            spion_random_bits(index, dropout.stream, dropout.step, dropout.seed);
#pragma unroll
        for (int e = 0; e < 8; ++e) keep[e] = spion_keep(bits, e, kThreshold) ? kKept : 0.0F;
    }
    return make_uint4(gelu_pair(x.x, keep[0], keep[1]), gelu_pair(x.y, keep[2], keep[3]),
                      gelu_pair(x.z, keep[4], keep[5]), gelu_pair(x.w, keep[6], keep[7]));
}

// Four warps share the 64 rows, two halves the columns. hidden and gated go out, gated into its
// tile.
SPION_DEVICE void first_product(const SpionFeedForwardArguments& args, unsigned x, int warp,
                                int lane, long long first, long long end) {
    const SpionDropout dropout = spion_dropout_now(args.dropout);
    const int rows = warp % 4 * 16, g = lane / 4, t = lane % 4;
#pragma unroll 1
    for (int n = 0; n < kHidden / 64; ++n) {
        const int group = warp / 4 * (kHidden / 64) + n, chunk = 4 * group + t;
        float acc[4][4] = {};
        multiply<kNarrowChunks>(acc, x, rows, weight1(), group, lane);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int row = rows + g + 8 * half;
            const long long octet = (first + row) * kWideChunks + chunk;
            const uint4 hidden = octet_of(acc, half, args.bias1 + 8 * chunk);
            const uint4 gated = gate(dropout, hidden, octet);
            store_shared_16(gated_tile() + chunk_offset<kWideChunks>(row, chunk), gated);
            if (first + row < end) {
                ((uint4*)args.hidden)[octet] = hidden;
                ((uint4*)args.gated)[octet] = gated;
            }
        }
    }
}

SPION_DEVICE void second_product(const SpionFeedForwardArguments& args, int warp, int lane,
                                 long long first, long long end) {
    const int rows = warp % 4 * 16, g = lane / 4, t = lane % 4;
#pragma unroll 1
    for (int n = 0; n < kChannels / 64; ++n) {
        const int group = warp / 4 * (kChannels / 64) + n, chunk = 4 * group + t;
        float acc[4][4] = {};
        multiply<kWideChunks>(acc, gated_tile(), rows, weight2(), group, lane);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const long long row = first + rows + g + 8 * half;
            if (row < end) {
                ((uint4*)args.y)[row * kNarrowChunks + chunk] =
                    octet_of(acc, half, args.bias2 + 8 * chunk);
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(kThreads, 3)
    feed_forward(const __grid_constant__ SpionFeedForwardArguments args) {
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    const long long begin = blockIdx.x * args.rows_per_item;
    const long long end =
        begin + args.rows_per_item < args.rows ? begin + args.rows_per_item : args.rows;
    const int tiles = (int)((end - begin + kTileRows - 1) / kTileRows);
    load_weights<kHidden, kNarrowChunks>(weight1(), args.weight1);
    load_weights<kChannels, kWideChunks>(weight2(), args.weight2);
    load_x(args, 0, begin, end);
    cp_async_commit_group();
    for (int tile = 0; tile < tiles; ++tile) {
        const long long first = begin + (long long)tile * kTileRows;
        if (tile + 1 < tiles) load_x(args, tile + 1, first + kTileRows, end);
        cp_async_commit_group();
        cp_async_wait_group<1>();
        __syncthreads();  // x is here, and the last tile of gated is done with
        first_product(args, x_tile(tile), warp, lane, first, end);
        __syncthreads();  // gated is here, and x done with
        second_product(args, warp, lane, first, end);
    }
}
