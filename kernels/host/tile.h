// Tiles of the host bodies. The stationary rows of a work item lie across the lanes: an operand of
// theirs is kept transposed, [D][kStationaryRows], and so is everything computed for them. Streamed
// rows are read where they lie, one broadcast element at a time. So no streamed tile is ever
// transposed, and softmax sums run down the lanes without horizontal operations.
#pragma once

#include "kernels/host/vector.h"

extern "C" {
extern const int kHeadDim;         // D of Q and K, a multiple of 8, at most kMaxHeadDim
extern const int kValueDim;        // Dv of V and O, likewise
extern const int kStationaryRows;  // 16, 32, 48 or 64
extern const int kVectorFloats;    // fp32 lanes of the CPU's registers: 16, 8 or 4
}

constexpr int kMaxHeadDim = 256;  // as ir/attention.h
constexpr int kMaxStationaryRows = 64;
constexpr int kMaxStreamedRows = 128;

// fp32, rows of kStationaryRows floats (the pitch is a constant once specialised).
struct alignas(64) Operand {  // [D or Dv][kStationaryRows]
    float data[kMaxHeadDim * kMaxStationaryRows];
};
struct alignas(64) Scores {  // [streamed rows of a step][kStationaryRows]
    float data[kMaxStreamedRows * kMaxStationaryRows];
};

// R x (16 C) outputs in registers: out[r][lane] = sum over k of a[r * row_step + k * k_step] *
// b[k][lane], added to what is there if kAdd.
template <int R, int C, bool kAdd>
SPION_INLINE void multiply_block(const float* a, long long row_step, long long k_step, int count,
                                 const float* b, float* out) {
    Floats sums[R][C];
#pragma unroll
    for (int r = 0; r < R; ++r) {
#pragma unroll
        for (int c = 0; c < C; ++c) {
            sums[r][c] = kAdd ? load(out + r * kStationaryRows + c * kLanes) : Floats(0.0F);
        }
    }
#pragma clang loop unroll_count(2)
    for (int k = 0; k < count; ++k) {
        Floats lanes[C];
#pragma unroll
        for (int c = 0; c < C; ++c) {
            lanes[c] = load(b + k * kStationaryRows + c * kLanes);
        }
#pragma unroll
        for (int r = 0; r < R; ++r) {
            const Floats element = a[r * row_step + k * k_step];
#pragma unroll
            for (int c = 0; c < C; ++c) {
                sums[r][c] = element * lanes[c] + sums[r][c];
            }
        }
    }
#pragma unroll
    for (int r = 0; r < R; ++r) {
#pragma unroll
        for (int c = 0; c < C; ++c) {
            store(out + r * kStationaryRows + c * kLanes, sums[r][c]);
        }
    }
}

// `rows` rows of outputs, in blocks of R and then one by one, all lanes in strips of C vectors.
template <int R, int C, bool kAdd>
SPION_INLINE void multiply_strips(const float* a, long long row_step, long long k_step, int rows,
                                  int count, const float* b, float* out) {
#pragma clang loop unroll(disable)
    for (int lane = 0; lane < kStationaryRows; lane += C * kLanes) {
        int r = 0;
#pragma clang loop unroll(disable)
        for (; r + R <= rows; r += R) {
            multiply_block<R, C, kAdd>(a + r * row_step, row_step, k_step, count, b + lane,
                                       out + r * kStationaryRows + lane);
        }
#pragma clang loop unroll(disable)
        for (; r < rows; ++r) {
            multiply_block<1, C, kAdd>(a + r * row_step, row_step, k_step, count, b + lane,
                                       out + r * kStationaryRows + lane);
        }
    }
}

// Block shapes that fill the registers: 16 accumulators of 32 with AVX-512, 8 of 16 otherwise.
template <bool kAdd>
SPION_INLINE void multiply(const float* a, long long row_step, long long k_step, int rows,
                           int count, const float* b, float* out) {
    if (kVectorFloats == 16 && kStationaryRows == 64) {
        multiply_strips<4, 4, kAdd>(a, row_step, k_step, rows, count, b, out);
    } else if (kVectorFloats == 16 && kStationaryRows % 32 == 0) {
        multiply_strips<8, 2, kAdd>(a, row_step, k_step, rows, count, b, out);
    } else if (kVectorFloats == 16) {
        multiply_strips<8, 1, kAdd>(a, row_step, k_step, rows, count, b, out);
    } else {
        multiply_strips<4, 1, kAdd>(a, row_step, k_step, rows, count, b, out);
    }
}

// scores[n][lane] = streamed[n] . stationary[:, lane] for `rows` streamed rows of `width` elements.
SPION_FUNCTION void score(const float* streamed, long long row_stride, int rows, int width,
                          const Operand& stationary, float* scores) {
    multiply<false>(streamed, row_stride, 1, rows, width, stationary.data, scores);
}

// sums[d][lane] += sum over n of streamed[n][d] * weights[n][lane].
SPION_FUNCTION void accumulate(const float* streamed, long long row_stride, int rows, int width,
                               const float* weights, Operand& sums) {
    multiply<true>(streamed, 1, row_stride, width, rows, weights, sums.data);
}

SPION_INLINE void set_zero(Operand& operand, int width) {
    for (int i = 0; i < width * kStationaryRows; i += kLanes) {
        store(operand.data + i, Floats(0.0F));
    }
}

// The last elements of a row, less than kLanes of them; the other lanes are zeros.
SPION_INLINE Floats load_part(const float* from, int count) {
    Floats part = 0.0F;
    for (int i = 0; i < count; ++i) {
        part[i] = from[i];
    }
    return part;
}
SPION_INLINE void store_part(float* to, Floats value, int count) {
    for (int i = 0; i < count; ++i) {
        to[i] = value[i];
    }
}

// Whether an element of rows[row][d], d < width, is not zero; the first row mostly says so.
SPION_INLINE bool any_non_zero(const float* rows, long long row_stride, int count, int width) {
    for (int row = 0; row < count; ++row) {
        for (int d = 0; d < width; d += kLanes) {
            const float* const from = rows + row * row_stride + d;
            const Floats part = width - d >= kLanes ? load(from) : load_part(from, width - d);
            if (__builtin_reduce_or(part != 0.0F) != 0) {
                return true;
            }
        }
    }
    return false;
}

// operand[d][row] = factor * rows[row][d] for d < width; lanes from `valid` on are zero.
SPION_FUNCTION void load_transposed(const float* rows, long long row_stride, int valid, int width,
                                    float factor, Operand& operand) {
    for (int row = 0; row < kStationaryRows; row += kLanes) {
        for (int d = 0; d < width; d += kLanes) {
            const int left = width - d;
            Floats square[kLanes];
#pragma unroll
            for (int i = 0; i < kLanes; ++i) {
                const float* const from = rows + (row + i) * row_stride + d;
                square[i] = row + i >= valid ? Floats(0.0F)
                            : left >= kLanes ? load(from) * factor
                                             : load_part(from, left) * factor;
            }
            transpose(square);
#pragma unroll
            for (int i = 0; i < kLanes; ++i) {
                store(operand.data + (d + i) * kStationaryRows + row, square[i]);
            }
        }
    }
}

// rows[row][d] = factor[row] * operand[d][row] for rows below `valid`; a factor of 0 gives 0
// whatever the operand holds.
SPION_FUNCTION void store_transposed(const Operand& operand, int width, const float* factor,
                                     float* rows, long long row_stride, int valid) {
    for (int row = 0; row < valid; row += kLanes) {
        const Floats scale = load(factor + row);
        for (int d = 0; d < width; d += kLanes) {
            Floats square[kLanes];
#pragma unroll
            for (int i = 0; i < kLanes; ++i) {
                const Floats sum = load(operand.data + (d + i) * kStationaryRows + row);
                square[i] = scale == 0.0F ? Floats(0.0F) : sum * scale;
            }
            transpose(square);
#pragma unroll
            for (int i = 0; i < kLanes; ++i) {
                if (row + i < valid && width - d >= kLanes) {
                    store(rows + (row + i) * row_stride + d, square[i]);
                } else if (row + i < valid) {
                    store_part(rows + (row + i) * row_stride + d, square[i], width - d);
                }
            }
        }
    }
}

// One value a stationary row.
struct alignas(64) RowValues {
    float data[kMaxStationaryRows];
};
SPION_INLINE void set_all(RowValues& values, float value) {
    for (int row = 0; row < kStationaryRows; row += kLanes) {
        store(values.data + row, Floats(value));
    }
}
