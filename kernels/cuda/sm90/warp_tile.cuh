// A warp's products with tiles of 16-bit elements that TMA wrote, by mma.sync.
//
// The warp has all kStationaryRows rows of a work item, as kRowTiles tiles of 16: what it reads of
// a streamed tile serves all of them. Results and scores have the accumulator layout of
// sm80/warp_mma.cuh, one a row tile; streamed tiles the layout of sm90/tile.cuh.
#ifndef SPION_WARP_TILE_CUH
#define SPION_WARP_TILE_CUH

#include "kernels/cuda/sm90/warp_contract.cuh"

#include "kernels/cuda/common/attention_walk.cuh"
#include "kernels/cuda/sm90/tile.cuh"

enum : int { kRowTiles = kStationaryRows / 16 };
enum : int { kScoreTiles = kColumns / 8 };
// Of 16 columns each: those of a tile beyond them are padding.
enum : int {
    kDepthSteps = (((int)kKeyDim > (int)kValueDim ? (int)kKeyDim : (int)kValueDim) + 15) / 16
};
enum : int { kResultTiles = 2 * kDepthSteps };

using Scores = float[kRowTiles][kScoreTiles][4];
using Result = float[kRowTiles][kResultTiles][4];

// The address that this lane gives to ldmatrix for columns [16 * step, + 16), when `lane_start` is
// the one that it gives for columns [0, 16) of the same rows of a tile of kRows rows.
template <int kRows>
SPION_DEVICE unsigned further_columns(unsigned lane_start, int step) {
    const int byte = 32 * step;
    return (lane_start ^ (byte % kSwizzleAtomBytes)) +
           byte / kSwizzleAtomBytes * (kRows * kSwizzleAtomBytes);
}

// A stationary operand [kStationaryRows, D]: fetched once into registers, or, where those are
// short, from its tile at every use.
template <bool kHeld>
struct Operand;

SPION_DEVICE void load_operand(unsigned (&words)[4], unsigned tile, int m, int step) {
    const LaneChunk lane_chunk = lane_chunk_by_rows(lane_index());
    const unsigned lane = tile + swizzled(lane_chunk.row, 16 * lane_chunk.chunk);
    ldmatrix_x4(words, further_columns<kStationaryRows>(lane, step) + m * 16 * kSwizzleAtomBytes);
}

template <>
struct Operand<true> {
    unsigned words[kDepthSteps][kRowTiles][4];

    __device__ __forceinline__ void take(unsigned tile) {
#pragma unroll
        for (int step = 0; step < kDepthSteps; ++step) {
#pragma unroll
            for (int m = 0; m < kRowTiles; ++m) load_operand(words[step][m], tile, m, step);
        }
    }
    // Columns [16 * step, + 16) of all rows.
    __device__ __forceinline__ void get(unsigned (&out)[kRowTiles][4], int step) const {
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
            for (int i = 0; i < 4; ++i) out[m][i] = words[step][m][i];
        }
    }
};

template <>
struct Operand<false> {
    unsigned tile;

    __device__ __forceinline__ void take(unsigned tile_) { tile = tile_; }
    __device__ __forceinline__ void get(unsigned (&out)[kRowTiles][4], int step) const {
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) load_operand(out[m], tile, m, step);
    }
};

template <int kTiles>
SPION_DEVICE void set_zero(float (&acc)[kRowTiles][kTiles][4]) {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) set_zero(acc[m]);
}

// acc += left * rows [row, row + kColumns) of the tile, transposed.
template <typename Left>
SPION_DEVICE void add_scores(Scores& acc, const Left& left, unsigned tile, int row) {
    const LaneChunk lane_chunk = lane_chunk_by_chunks(lane_index());
    const unsigned lane =
        tile + row * kSwizzleAtomBytes + swizzled(lane_chunk.row, 16 * lane_chunk.chunk);
#pragma unroll
    for (int step = 0; step < kDepthSteps; ++step) {
        const unsigned start = further_columns<kStreamedRows>(lane, step);
        unsigned a[kRowTiles][4];
        left.get(a, step);
#pragma unroll
        for (int j = 0; j < kScoreTiles; j += 2) {
            unsigned b[4];
            ldmatrix_x4(b, start + j * 8 * kSwizzleAtomBytes);
#pragma unroll
            for (int m = 0; m < kRowTiles; ++m) {
                Element::mma(acc[m][j], a[m], b[0], b[1]);
                Element::mma(acc[m][j + 1], a[m], b[2], b[3]);
            }
        }
    }
}

// acc += left * rows [row, row + kColumns) of the tile; left is rounded to elements.
SPION_DEVICE void add_product(Result& acc, const Scores& left, unsigned tile, int row) {
    const LaneChunk lane_chunk = lane_chunk_by_rows(lane_index());
    const unsigned lane =
        tile + row * kSwizzleAtomBytes + swizzled(lane_chunk.row, 16 * lane_chunk.chunk);
    unsigned a[kRowTiles][kScoreTiles / 2][4];
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) pack_operand(a[m], left[m]);
#pragma unroll
    for (int step = 0; step < kScoreTiles / 2; ++step) {
#pragma unroll
        for (int j = 0; j < kResultTiles; j += 2) {
            unsigned b[4];
            ldmatrix_x4_trans(
                b, further_columns<kStreamedRows>(lane, j / 2) + step * 16 * kSwizzleAtomBytes);
#pragma unroll
            for (int m = 0; m < kRowTiles; ++m) {
                Element::mma(acc[m][j], a[m][step], b[0], b[1]);
                Element::mma(acc[m][j + 1], a[m][step], b[2], b[3]);
            }
        }
    }
}

// The warp makes rows [first, kStreamedRows) of a streamed tile zeros: what lies there need not be
// finite.
SPION_DEVICE void zero_streamed_rows(unsigned tile, int first) {
    for (int chunk = first * kRowChunks + lane_index(); chunk < kStreamedRows * kRowChunks;
         chunk += 32) {
        const int offset = tile_offset<kStreamedRows>(chunk / kRowChunks, chunk % kRowChunks * 16);
        store_shared_16(tile + offset, make_uint4(0, 0, 0, 0));
    }
    fence_proxy_async_shared();
    __syncwarp();
}

// Writes a result, its rows 16 m + g and 16 m + g + 8 scaled by factor[m][0] and factor[m][1], to
// rows [first, first + kStationaryRows) below `limit`, 16 bytes a lane. `tile` [kStationaryRows, D] of
// shared memory serves as staging.
template <int kChunks>
SPION_DEVICE void store_result(unsigned tile, const Result& acc,
                               const float (&factor)[kRowTiles][2], const RowsOf<kChunks>& target,
                               int first, int limit) {
    const int g = lane_index() / 4, t = lane_index() % 4;
    __syncwarp();
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
        for (int j = 0; j < kResultTiles; ++j) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float scale = factor[m][half];
                const int offset =
                    tile_offset<kStationaryRows>(16 * m + g + 8 * half, 16 * j + 4 * t);
                store_shared_word(tile + offset, Element::pack(acc[m][j][2 * half] * scale,
                                                               acc[m][j][2 * half + 1] * scale));
            }
        }
    }
    __syncwarp();
    constexpr int kCopies = kStationaryRows * kRowChunks / 32;
#pragma unroll 4
    for (int i = 0; i < kCopies; ++i) {
        const int row = (32 * i + lane_index()) / kRowChunks;
        const int chunk = (32 * i + lane_index()) % kRowChunks;
        const uint4 value = load_shared_16(tile + tile_offset<kStationaryRows>(row, chunk * 16));
        if (first + row < limit && target.has(chunk))
            *(uint4*)target.at(first + row, chunk) = value;
    }
    fence_proxy_async_shared();
    __syncwarp();
}

// The same of a result of zeros.
template <int kChunks>
SPION_DEVICE void store_zeros(const RowsOf<kChunks>& target, int first, int limit) {
    for (int i = lane_index(); i < kStationaryRows * kRowChunks; i += 32) {
        if (first + i / kRowChunks < limit && target.has(i % kRowChunks)) {
            *(uint4*)target.at(first + i / kRowChunks, i % kRowChunks) = make_uint4(0, 0, 0, 0);
        }
    }
}

#endif
