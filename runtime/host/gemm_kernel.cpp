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

// Columns of the panels that hold `columns` columns.
constexpr std::int64_t panel_columns(std::int64_t columns) {
    return (columns + kWidth - 1) / kWidth * kWidth;
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

// What becomes of the sums of a register tile: alpha * sum + beta * c + bias in `width` columns of c.
struct Output {
    float* to;
    std::int64_t width;  // at most kWidth
    float beta;
    const float* bias;  // of these columns; null: none
};

// Rows of c at `out`, from `depth` columns of a and a panel of b. Rows is a constant, so that the
// accumulators stay in registers.
template <int Rows>
void multiply_tile(const GemmPart& part, const float* a, std::int64_t depth, const float* panel,
                   const Output& out) {
    Vector sum[Rows][kVectors] = {};
    // Columns of a transposed `a` lie far apart, where no hardware prefetcher looks: what the next tile
    // of b will be multiplied with is fetched while this one is.
    const std::int64_t ahead = part.a_row == 1 ? kGemmDepth * part.a_column : 0;
    for (std::int64_t p = 0; p < depth; ++p) {
        Vector b[kVectors];
        for (int v = 0; v < kVectors; ++v) {
            b[v] = *reinterpret_cast<const Vector*>(panel + p * kWidth + v * kLanes);
        }
        const float* column = a + p * part.a_column;
        __builtin_prefetch(column + ahead, 0, 2);  // to read, into the second-level cache
#pragma GCC unroll 16
        for (int r = 0; r < Rows; ++r) {
            const float element = column[r * part.a_row];
            for (int v = 0; v < kVectors; ++v) {
                sum[r][v] += element * b[v];
            }
        }
    }
    if (out.width == kWidth) {
        Vector bias[kVectors] = {};
        for (int v = 0; out.bias != nullptr && v < kVectors; ++v) {
            bias[v] = *reinterpret_cast<const LooseVector*>(out.bias + v * kLanes);
        }
#pragma GCC unroll 16
        for (int r = 0; r < Rows; ++r) {
            for (int v = 0; v < kVectors; ++v) {
                LooseVector* c = reinterpret_cast<LooseVector*>(out.to + r * part.ldc + v * kLanes);
                const Vector product = part.alpha * sum[r][v];
                *c = (out.beta == 0.0F ? product : product + out.beta * *c) + bias[v];
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
        for (std::int64_t q = 0; q < out.width; ++q) {
            float& c = out.to[r * part.ldc + q];
            c = (out.beta == 0.0F ? tile[r][q] : tile[r][q] + out.beta * c) +
                (out.bias == nullptr ? 0.0F : out.bias[q]);
        }
    }
}

template <int Rows>
void multiply_rows(std::int64_t rows, const GemmPart& part, const float* a, std::int64_t depth,
                   const float* panel, const Output& out) {
    if constexpr (Rows > 0) {
        if (rows == Rows) {
            multiply_tile<Rows>(part, a, depth, panel, out);
        } else {
            multiply_rows<Rows - 1>(rows, part, a, depth, panel, out);
        }
    }
}

// What is left of `count` rows of `width` elements without the last ones that are all zeros. In training
// those are the gradients of a sample's padding.
std::int64_t without_zeros(const float* rows, std::int64_t stride, std::int64_t count,
                           std::int64_t width) {
    for (; count > 0; --count) {
        const float* row = rows + (count - 1) * stride;
        int not_zero = 0;
        for (std::int64_t i = 0; i < width; ++i) {
            not_zero |= static_cast<int>(row[i] != 0.0F);
        }
        if (not_zero != 0) {
            break;
        }
    }
    return count;
}

// A tile of b, [depth, columns] at (k0, n0), and its place among those of its columns.
struct Tile {
    std::int64_t k0, depth, n0, columns;
    bool first, last;
    std::int64_t before;  // floats of the tiles before, when all are packed
};

// Calls visit(tile) for every tile of b; at least once, so that c is scaled by beta where there is
// nothing to add up.
template <typename Visit>
void for_each_tile(const GemmPart& part, Visit visit) {
    std::int64_t before = 0;
    for (std::int64_t n0 = 0; n0 < part.n; n0 += kGemmColumns) {
        const std::int64_t columns = smaller(kGemmColumns, part.n - n0);
        for (std::int64_t k0 = 0; k0 == 0 || k0 < part.k; k0 += kGemmDepth) {
            const std::int64_t depth = smaller(kGemmDepth, part.k - k0);
            visit(Tile{k0, depth, n0, columns, k0 == 0, k0 + depth == part.k, before});
            before += depth * panel_columns(columns);
        }
    }
}

// All rows of c in a tile's columns, panel by panel: a panel stays in the first-level cache while the
// rows of a pass it.
void multiply_columns(const GemmPart& part, const Tile& tile, const float* packed) {
    for (std::int64_t j = 0; j < tile.columns; j += kWidth) {
        const std::int64_t column = tile.n0 + j;
        Output out{.to = part.c + column,
                   .width = smaller(kWidth, tile.columns - j),
                   .beta = tile.first ? part.beta : 1.0F,
                   .bias = tile.last && part.bias != nullptr ? part.bias + column : nullptr};
        for (std::int64_t i = 0; i < part.m; i += kRows, out.to += kRows * part.ldc) {
            multiply_rows<kRows>(smaller(kRows, part.m - i), part,
                                 part.a + i * part.a_row + tile.k0 * part.a_column, tile.depth,
                                 packed + j * tile.depth, out);
        }
    }
}

void pack_all(const GemmPart& part, float* packed) {
    for_each_tile(part, [&](const Tile& tile) {
        pack(part, tile.k0, tile.depth, tile.n0, tile.columns, packed + tile.before);
    });
}

void multiply_tiles(const GemmPart& part, float* workspace) {
    for_each_tile(part, [&](Tile tile) {
        if (part.packed != nullptr) {
            multiply_columns(part, tile, part.packed + tile.before);
            return;
        }
        if (part.a_row == 1) {
            tile.depth =
                without_zeros(part.a + tile.k0 * part.a_column, part.a_column, tile.depth, part.m);
        }
        pack(part, tile.k0, tile.depth, tile.n0, tile.columns, workspace);
        multiply_columns(part, tile, workspace);
    });
}

void multiply(const GemmPart& part, float* workspace) {
    GemmPart live = part;
    if (part.a_column == 1) {
        live.m = without_zeros(part.a, part.a_row, part.m, part.k);
    }
    if (live.m > 0) multiply_tiles(live, workspace);
    if (live.m == part.m) return;
    GemmPart zeros = part;  // of a: no products
    zeros.m -= live.m;
    zeros.k = 0;
    zeros.c += live.m * part.ldc;
    multiply_tiles(zeros, workspace);
}

}  // namespace

#if SPION_GEMM_LANES == 16
void multiply_16_lanes(const GemmPart& part, float* workspace) {
    multiply(part, workspace);
}
void pack_16_lanes(const GemmPart& part, float* packed) {
    pack_all(part, packed);
}
#elif SPION_GEMM_LANES == 8
void multiply_8_lanes(const GemmPart& part, float* workspace) {
    multiply(part, workspace);
}
void pack_8_lanes(const GemmPart& part, float* packed) {
    pack_all(part, packed);
}
#else
void multiply_4_lanes(const GemmPart& part, float* workspace) {
    multiply(part, workspace);
}
void pack_4_lanes(const GemmPart& part, float* packed) {
    pack_all(part, packed);
}
#endif

}  // namespace spion
