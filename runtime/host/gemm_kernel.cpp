// Compiled once for each SPION_GEMM_LANES, with that width's instructions enabled. So nothing here
// may be an inline function that other files share: the linker keeps one copy of those, and another
// processor might then run it. Everything is local, and no header of the library with code is used.
#include "runtime/host/gemm_kernel.h"

namespace spion {
namespace {

constexpr int kLanes = SPION_GEMM_LANES;

// Vectors of kLanes floats: aligned, and as they lie in a matrix. (Never `auto*` for a pointer to
// the latter: deduction drops the attribute that says how little it is aligned.)
using Vector __attribute__((vector_size(4 * kLanes))) = float;
using LooseVector __attribute__((vector_size(4 * kLanes), aligned(4), may_alias)) = float;

// A register tile: kRows x kVectors accumulators, kVectors of b and one broadcast of a fill the 32
// registers of AVX-512, or the 16 of the others.
constexpr int kRows = kLanes == 16 ? 12 : 6;
constexpr int kVectors = 2;
constexpr std::int64_t kWidth = kVectors * kLanes;
static_assert(kGemmColumns % kWidth == 0);

constexpr std::int64_t smaller(std::int64_t a, std::int64_t b) {
    return a < b ? a : b;
}

// The depth x columns tile of b at (k0, n0), as panels of kWidth columns, each [depth, kWidth]; the
// last one is filled up with zeros.
void pack(const GemmPart& part, std::int64_t k0, std::int64_t depth, std::int64_t n0,
          std::int64_t columns, float* packed) {
    for (std::int64_t j = 0; j < columns; j += kWidth) {
        const std::int64_t width = smaller(kWidth, columns - j);
        const float* from = part.b + k0 * part.b_row + (n0 + j) * part.b_column;
        float* panel = packed + j * depth;
        if (width < kWidth) {
            for (std::int64_t i = 0; i < depth * kWidth; ++i) {
                panel[i] = 0.0F;
            }
        }
        if (part.b_column == 1) {
            for (std::int64_t p = 0; p < depth; ++p) {
                for (std::int64_t q = 0; q < width; ++q) {
                    panel[p * kWidth + q] = from[p * part.b_row + q];
                }
            }
        } else {  // columns of b are contiguous
            for (std::int64_t q = 0; q < width; ++q) {
                for (std::int64_t p = 0; p < depth; ++p) {
                    panel[p * kWidth + q] = from[p * part.b_row + q * part.b_column];
                }
            }
        }
    }
}

// `rows` x `width` of c at `to`, from `depth` columns of a and a panel of b. Rows: the constant
// that `rows` equals, so that the accumulators stay in registers.
template <int Rows>
void multiply_tile(const GemmPart& part, const float* a, std::int64_t depth, const float* panel,
                   float beta, float* to, std::int64_t width) {
    Vector sum[Rows][kVectors] = {};
    for (std::int64_t p = 0; p < depth; ++p) {
        Vector b[kVectors];
        for (int v = 0; v < kVectors; ++v) {
            b[v] = *reinterpret_cast<const Vector*>(panel + p * kWidth + v * kLanes);
        }
        const float* column = a + p * part.a_column;
#pragma GCC unroll 16
        for (int r = 0; r < Rows; ++r) {
            const float element = column[r * part.a_row];
            for (int v = 0; v < kVectors; ++v) {
                sum[r][v] += element * b[v];
            }
        }
    }
    if (width == kWidth) {
#pragma GCC unroll 16
        for (int r = 0; r < Rows; ++r) {
            for (int v = 0; v < kVectors; ++v) {
                LooseVector* c = reinterpret_cast<LooseVector*>(to + r * part.ldc + v * kLanes);
                const Vector product = part.alpha * sum[r][v];
                *c = beta == 0.0F ? product : product + beta * *c;
            }
        }
        return;
    }
    // By way of memory, since accumulators that a variable indexes would never be registers.
    float tile[Rows][kWidth];
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
        for (int v = 0; v < kVectors; ++v) {
            *reinterpret_cast<LooseVector*>(&tile[r][v * kLanes]) = part.alpha * sum[r][v];
        }
    }
    for (int r = 0; r < Rows; ++r) {
        for (std::int64_t q = 0; q < width; ++q) {
            float& c = to[r * part.ldc + q];
            c = beta == 0.0F ? tile[r][q] : tile[r][q] + beta * c;
        }
    }
}

template <int Rows>
void multiply_rows(std::int64_t rows, const GemmPart& part, const float* a, std::int64_t depth,
                   const float* panel, float beta, float* to, std::int64_t width) {
    if constexpr (Rows > 0) {
        if (rows == Rows) {
            multiply_tile<Rows>(part, a, depth, panel, beta, to, width);
        } else {
            multiply_rows<Rows - 1>(rows, part, a, depth, panel, beta, to, width);
        }
    }
}

void multiply(const GemmPart& part, float* workspace) {
    for (std::int64_t n0 = 0; n0 < part.n; n0 += kGemmColumns) {
        const std::int64_t columns = smaller(kGemmColumns, part.n - n0);
        // At least once, so that c is scaled by beta where there is nothing to add up.
        for (std::int64_t k0 = 0; k0 == 0 || k0 < part.k; k0 += kGemmDepth) {
            const std::int64_t depth = smaller(kGemmDepth, part.k - k0);
            const float beta = k0 == 0 ? part.beta : 1.0F;
            pack(part, k0, depth, n0, columns, workspace);
            for (std::int64_t i = 0; i < part.m; i += kRows) {
                const float* a = part.a + i * part.a_row + k0 * part.a_column;
                float* c = part.c + i * part.ldc + n0;
                for (std::int64_t j = 0; j < columns; j += kWidth) {
                    multiply_rows<kRows>(smaller(kRows, part.m - i), part, a, depth,
                                         workspace + j * depth, beta, c + j,
                                         smaller(kWidth, columns - j));
                }
            }
        }
    }
}

}  // namespace

#if SPION_GEMM_LANES == 16
void multiply_16_lanes(const GemmPart& part, float* workspace) {
    multiply(part, workspace);
}
#elif SPION_GEMM_LANES == 8
void multiply_8_lanes(const GemmPart& part, float* workspace) {
    multiply(part, workspace);
}
#else
void multiply_4_lanes(const GemmPart& part, float* workspace) {
    multiply(part, workspace);
}
#endif

}  // namespace spion
