// A warp's matrix products, for the element type that the generated source names.
//
// Every product keeps 16 rows a warp and the accumulator layout of mma.m16n8: with g = lane / 4 and
// t = lane % 4, value i of tile j of acc[columns / 8][4] is row g + 8 * (i / 2), column
// 8 * j + 2 * t + i % 2. An accumulator is also a left operand as it stands: scores become
// probabilities and go into the next product without leaving registers.
//
//   WarpMma::Fragment                  kStep columns of a left operand [16, ..]
//   WarpMma::load(tile, row, step)     columns [step * kStep, +kStep) of rows [row, row + 16)
//   WarpMma::multiply_transposed       acc[16, n] += left[16, D] * tile[row .. row + n, D]^T
//   WarpMma::multiply                  acc[16, D] += left[16, n] * tile[row .. row + n, D]
// `tile` is the shared address of rows of kHeadDim elements in the layout of
// common/tile_layout.cuh; rows given are multiples of 8.
#ifndef SPION_WARP_MMA_CUH
#define SPION_WARP_MMA_CUH

#include "kernels/cuda/common/contract.cuh"
#include "kernels/cuda/common/tile.cuh"
#include "kernels/cuda/sm80/warp_mma16.cuh"
#include "kernels/cuda/sm80/warp_mma_fma32.cuh"
#include "kernels/cuda/sm80/warp_mma_tf32.cuh"

template <typename E>
struct WarpMmaOf {
    using Type = Mma16<E>;
};
template <>
struct WarpMmaOf<Tf32> {
    using Type = MmaTf32;
};
template <>
struct WarpMmaOf<Fp32> {
    using Type = Fma32;
};
using WarpMma = WarpMmaOf<Element>::Type;

// The 16 rows of a warp's left operand that stay the same throughout: fetched once into registers,
// or, where those are short, fetched from the tile at every use. A loop over its fragments is
// unrolled kUnrolled-fold: all the way if they are registers.
template <bool kHeld>
struct Stationary;

template <>
struct Stationary<true> {
    enum : int { kUnrolled = kHeadDim / WarpMma::kStep };
    WarpMma::Fragment fragments[kHeadDim / WarpMma::kStep];
    __device__ __forceinline__ Stationary(unsigned tile, int row) {
#pragma unroll
        for (int step = 0; step < kHeadDim / WarpMma::kStep; ++step) {
            fragments[step] = WarpMma::load(tile, row, step);
        }
    }
    __device__ __forceinline__ WarpMma::Fragment operator[](int step) const {
        return fragments[step];
    }
};

template <>
struct Stationary<false> {
    enum : int { kUnrolled = 2 };
    unsigned tile;
    int row;
    __device__ __forceinline__ Stationary(unsigned tile_, int row_) : tile(tile_), row(row_) {}
    __device__ __forceinline__ WarpMma::Fragment operator[](int step) const {
        return WarpMma::load(tile, row, step);
    }
};

#endif
