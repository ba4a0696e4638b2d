// A tile of rows of one head in shared memory: its size, lanes, and reads of single elements.
#ifndef SPION_TILE_CUH
#define SPION_TILE_CUH

#include "kernels/cuda/common/contract.cuh"
#include "kernels/cuda/common/element.cuh"
#include "kernels/cuda/common/tile_layout.cuh"

enum : int { kRowBytes = kHeadDim * Element::kBytes };
enum : int { kRowChunks = kRowBytes / 16 };
enum : int { kHeadTiles = kHeadDim / 8 };  // accumulator tiles of a [16, D] result
enum : int { kThreads = 32 * kWarps };

SPION_DEVICE int lane_index() {
    return (int)(threadIdx.x % 32);
}
SPION_DEVICE int warp_index() {
    return (int)(threadIdx.x / 32);
}

// Reductions over the 4 lanes that share a row of an accumulator.
SPION_DEVICE float quad_sum(float x) {
    x += __shfl_xor_sync(0xFFFFFFFFU, x, 1);
    return x + __shfl_xor_sync(0xFFFFFFFFU, x, 2);
}

SPION_DEVICE float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFU, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xFFFFFFFFU, x, 2));
}

// fp32 tiles. `start` is the shared address of a row that is a multiple of 8, `row` counts from it;
// column and more are even. Two floats at columns column + more and column + more + 1, where `more`
// is a multiple of 8 and column < 8.
SPION_DEVICE float2 load_pair(unsigned start, int row, int column, int more) {
    const int offset =
        offset_further<kRowChunks>(chunk_offset<kRowChunks>(row, column / 4), more / 4);
    return load_shared_float2(start + offset + column % 4 * 4);
}

// One float at column + more, likewise.
SPION_DEVICE float load_single(unsigned start, int row, int column, int more) {
    const int offset =
        offset_further<kRowChunks>(chunk_offset<kRowChunks>(row, column / 4), more / 4);
    return load_shared_float(start + offset + column % 4 * 4);
}

template <int kTiles>
SPION_DEVICE void copy(float (&to)[kTiles][4], const float (&from)[kTiles][4]) {
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) to[j][i] = from[j][i];
    }
}

template <int kTiles>
SPION_DEVICE void set_zero(float (&acc)[kTiles][4]) {
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) acc[j][i] = 0.0F;
    }
}

#endif
