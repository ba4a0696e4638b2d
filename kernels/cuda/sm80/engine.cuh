// A warp's matrix products, for the element type that the generated source names.
//
// Every engine keeps 16 rows a warp and the accumulator layout of mma.m16n8: with g = lane / 4 and
// t = lane % 4, value i of tile j of acc[columns / 8][4] is row g + 8 * (i / 2), column
// 8 * j + 2 * t + i % 2. An accumulator is also a left operand as it stands: scores become
// probabilities and go into the next product without leaving registers.
//
//   Engine::Fragment                  kStep columns of a left operand [16, ..]
//   Engine::load(tile, row, step)     columns [step * kStep, +kStep) of rows [row, row + 16)
//   Engine::multiply_transposed       acc[16, n] += left[16, D] * tile[row .. row + n, D]^T
//   Engine::multiply                  acc[16, D] += left[16, n] * tile[row .. row + n, D]
// `tile` is the shared address of rows of kHeadDim elements in the layout of
// common/tile_layout.cuh; rows given are multiples of 8.
#ifndef SPION_ENGINE_CUH
#define SPION_ENGINE_CUH

#include "kernels/cuda/common/contract.cuh"
#include "kernels/cuda/common/tile.cuh"
#include "kernels/cuda/sm80/engine_fma32.cuh"
#include "kernels/cuda/sm80/engine_mma16.cuh"
#include "kernels/cuda/sm80/engine_mma_tf32.cuh"

template <typename E>
struct EngineOf {
    using Type = Mma16<E>;
};
template <>
struct EngineOf<Tf32> {
    using Type = MmaTf32;
};
template <>
struct EngineOf<Fp32> {
    using Type = Fma32;
};
using Engine = EngineOf<Element>::Type;

// The 16 rows of a warp's left operand that stay the same throughout: fetched once into registers,
// or, where those are short, fetched from the tile at every use. A loop over its fragments is
// unrolled kUnrolled-fold: all the way if they are registers.
template <bool kHeld>
struct Stationary;

template <>
struct Stationary<true> {
    enum : int { kUnrolled = kHeadDim / Engine::kStep };
    Engine::Fragment fragments[kHeadDim / Engine::kStep];
    __device__ __forceinline__ Stationary(unsigned tile, int row) {
#pragma unroll
        for (int step = 0; step < kHeadDim / Engine::kStep; ++step) {
            fragments[step] = Engine::load(tile, row, step);
        }
    }
    __device__ __forceinline__ Engine::Fragment operator[](int step) const {
        return fragments[step];
    }
};

template <>
struct Stationary<false> {
    enum : int { kUnrolled = 2 };
    unsigned tile;
    int row;
    __device__ __forceinline__ Stationary(unsigned tile_, int row_) : tile(tile_), row(row_) {}
    __device__ __forceinline__ Engine::Fragment operator[](int step) const {
        return Engine::load(tile, row, step);
    }
};

#endif
