// One thread's part of a matrix product, in the vector instructions that a file was compiled for.
// The file gemm_kernel.cpp is compiled once for each width; runtime/host/gemm.cpp picks by what the
// processor has, so no processor has to be known by name.
#pragma once

#include <cstdint>

namespace spion {

// c[m, n] = alpha * a[m, k] b[k, n] + beta * c + bias, fp32. An element (i, p) of `a` lies at
// a[i * a_row + p * a_column], so that a transposed operand is one with the strides exchanged; so
// does b. Rows of c are contiguous, ldc apart. With beta 0 c is not read. Zeros of `a` may be left out
// of the sums: what is no number in b does not get into c by them.
struct GemmPart {
    std::int64_t m = 0, n = 0, k = 0;
    const float* a = nullptr;
    std::int64_t a_row = 0, a_column = 0;
    const float* b = nullptr;
    std::int64_t b_row = 0, b_column = 0;
    float* c = nullptr;
    std::int64_t ldc = 0;
    float alpha = 1.0F, beta = 0.0F;
    const float* bias = nullptr;    // [n], added to every row; null: none
    const float* packed = nullptr;  // what a GemmPack made of this b; null: tiles are copied anew
};

// Floats, 64-byte aligned, that a kernel needs for the tile of b that it copies.
constexpr std::int64_t kGemmDepth = 256;    // k of that tile
constexpr std::int64_t kGemmColumns = 512;  // n of that tile
constexpr std::int64_t kGemmWorkspace = kGemmDepth * kGemmColumns;

// An element's sum is over k in order, in steps of kGemmDepth, whatever m and n are. With
// part.packed the workspace is not used.
using GemmKernel = void(const GemmPart& part, float* workspace);

// Copies all of b, once for many parts that have it in common, to gemm_packed_floats(n, k) floats,
// 64-byte aligned. To be used by the kernel of the same width.
using GemmPack = void(const GemmPart& part, float* packed);
constexpr std::int64_t gemm_packed_floats(std::int64_t n, std::int64_t k) {
    constexpr std::int64_t kWidest = 32;  // columns of a register tile
    return (n + kWidest - 1) / kWidest * kWidest * k;
}

// 4 lanes: what every processor of this architecture has.
GemmKernel multiply_4_lanes;
GemmPack pack_4_lanes;
#if defined(__x86_64__)
GemmKernel multiply_8_lanes;  // AVX2 and FMA
GemmPack pack_8_lanes;
GemmKernel multiply_16_lanes;  // AVX-512F
GemmPack pack_16_lanes;
#endif

}  // namespace spion
