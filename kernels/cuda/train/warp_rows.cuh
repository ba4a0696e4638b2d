// Rows that stay in the registers of a warp, 16 at a time. Lane 4 g + t has, of every 32 columns, the
// octet t of rows g and g + 8: what it moves in 16 bytes, what a counter of dropout covers, and a
// tensor core's operand and accumulator without a shuffle. For that the columns of a group of 32
// take other places in a product: column 8 t + 2 j + e has place 8 j + 2 t + e, in the weights (rows
// and columns alike) and so in sums over it, which do not mind the order.
#pragma once

#include "kernels/cuda/common/ptx.cuh"
#include "kernels/cuda/common/tile_layout.cuh"
#include "kernels/cuda/train/contract.cuh"
#include "kernels/cuda/train/octet.cuh"
#include "kernels/cuda/train/weights.cuh"
#include "kernels/layer_arguments.h"

enum : int { kWarpRows = kSpionWarpRows };
enum : int { kGroups = kChannels / 32, kChannelChunks = kChannels / 8 };
static_assert(kChannels % 32 == 0);

// [rows g, g + 8][octet t of each group of 32 channels].
struct WarpRows {
    uint4 octet[2][kGroups];
};
// The same in fp32, as a product leaves it: of group n and row g + 8 h, element e of the octet is
// acc[n][e / 2][2 h + e % 2].
struct WarpSums {
    float acc[kGroups][4][4];
};

// Where the rows of the item that begins at `begin` end. Rows, and octets of the widest tensor, are fewer
// than 2^32, which FusedLayer checks: half the registers for each.
template <typename Arguments>
SPION_DEVICE unsigned item_end(const Arguments& args, unsigned begin) {
    const unsigned end = begin + (unsigned)args.rows_per_item;
    return end < (unsigned)args.rows ? end : (unsigned)args.rows;
}

SPION_DEVICE int lane_row() {
    return (int)threadIdx.x % 32 / 4;
}
SPION_DEVICE int lane_octet() {
    return (int)threadIdx.x % 4;
}

// The address of chunk `chunk + more` of a row from that of `chunk`, in tiles that start at a multiple of
// 128 and permute chunks in groups of 8, where no bit of `more` is among those that `chunk` may have:
// chunk < 2 and an even number, or chunk < 4 and a multiple of 4. One XOR, of no register.
SPION_DEVICE unsigned further(unsigned address, int more) {
    return (address ^ (unsigned)(more % 8 * 16)) + more / 8 * 128;
}

// The tensor core's operand of half a group of the columns of both rows.
SPION_DEVICE void operand(unsigned (&a)[4], const uint4& row, const uint4& row_below, int step) {
    a[0] = word_of(row, 2 * step);
    a[1] = word_of(row_below, 2 * step);
    a[2] = word_of(row, 2 * step + 1);
    a[3] = word_of(row_below, 2 * step + 1);
}

// Both halves of a group, and all of a warp's rows, in the registers that a product reads together.
struct Operand {
    unsigned step[2][4];
};
struct WarpOperands {
    Operand group[kGroups];
};
SPION_DEVICE WarpOperands operands_of(const WarpRows& rows) {
    WarpOperands result;
    const unsigned zero = run_time_zero();  // or else each product would move its words together
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
#pragma unroll
        for (int step = 0; step < 2; ++step) {
            operand(result.group[group].step[step], rows.octet[0][group], rows.octet[1][group],
                    step);
#pragma unroll
            for (unsigned& word : result.group[group].step[step]) word |= zero;
        }
    }
    return result;
}
// The reverse.
SPION_DEVICE WarpRows rows_of(const WarpOperands& operands) {
    WarpRows rows;
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
        const auto& step = operands.group[group].step;
        rows.octet[0][group] = make_uint4(step[0][0], step[0][2], step[1][0], step[1][2]);
        rows.octet[1][group] = make_uint4(step[0][1], step[0][3], step[1][1], step[1][3]);
    }
    return rows;
}
SPION_DEVICE Operand operand_of(const uint4& row, const uint4& row_below) {
    Operand result;
    operand(result.step[0], row, row_below, 0);
    operand(result.step[1], row, row_below, 1);
    return result;
}

// acc += x M^T: columns [32 k_group, + 32) of x times rows [32 n_group, + 32) of M [.., 8 kChunks].
template <int kChunks>
SPION_DEVICE void multiply_by_rows(float (&acc)[4][4], const Operand& x, unsigned matrix,
                                   int n_group, int k_group) {
    const LaneChunk lane = lane_chunk_by_chunks((int)threadIdx.x % 32);
    static_assert(kChunks % 8 == 0);
    matrix += chunk_offset<kChunks>(lane.row, lane.chunk) + 32 * n_group * kChunks * 16;
#pragma unroll
    for (int step = 0; step < 2; ++step) {
        unsigned b[4];
#pragma unroll
        for (int pair = 0; pair < 2; ++pair) {
            ldmatrix_x4(b, further(matrix, 4 * k_group + 2 * step) + 16 * pair * kChunks * 16);
            Element::mma(acc[2 * pair], x.step[step], b[0], b[1]);
            Element::mma(acc[2 * pair + 1], x.step[step], b[2], b[3]);
        }
    }
}

// acc += x M: columns [32 k_group, + 32) of x, which are rows of M, times columns [32 n_group, + 32).
template <int kChunks>
SPION_DEVICE void multiply_by_columns(float (&acc)[4][4], const Operand& x, unsigned matrix,
                                      int n_group, int k_group) {
    const LaneChunk lane = lane_chunk_by_rows((int)threadIdx.x % 32);
    static_assert(kChunks % 8 == 0);
    matrix += chunk_offset<kChunks>(lane.row, lane.chunk) + 32 * k_group * kChunks * 16;
#pragma unroll
    for (int step = 0; step < 2; ++step) {
        unsigned b[4];
#pragma unroll
        for (int pair = 0; pair < 2; ++pair) {
            ldmatrix_x4_trans(b,
                              further(matrix, 4 * n_group + 2 * pair) + 16 * step * kChunks * 16);
            Element::mma(acc[2 * pair], x.step[step], b[0], b[1]);
            Element::mma(acc[2 * pair + 1], x.step[step], b[2], b[3]);
        }
    }
}

// One group's accumulators with the same octet in both rows.
SPION_DEVICE void start(float (&acc)[4][4], const Octet& octet) {
#pragma unroll
    for (int e = 0; e < 8; ++e) acc[e / 2][e % 2] = acc[e / 2][2 + e % 2] = octet.value[e];
}
// The octet of row g + 8 half in one group's accumulators.
SPION_DEVICE Octet octet_of(const float (&acc)[4][4], int half) {
    Octet octet;
#pragma unroll
    for (int e = 0; e < 8; ++e) octet.value[e] = acc[e / 2][2 * half + e % 2];
    return octet;
}

SPION_DEVICE void add(Octet& octet, const Octet& other) {
#pragma unroll
    for (int e = 0; e < 8; ++e) octet.value[e] += other.value[e];
}

SPION_DEVICE void scale(Octet& octet, float factor) {
#pragma unroll
    for (float& value : octet.value) value *= factor;
}

// An fp32 vector likewise. A loop leaves it in shared memory: what is read from global memory it would keep
// in registers.
template <int kCount>
struct Vector {
    static_assert(kCount <= kThreads);
    float value;

    __device__ __forceinline__ explicit Vector(const float* source)
        : value(threadIdx.x < kCount ? source[threadIdx.x] : 0.0F) {}
    __device__ __forceinline__ void store(unsigned target) const {
        if (threadIdx.x < kCount) store_shared_float(target + threadIdx.x * 4, value);
    }
};
SPION_DEVICE Octet vector_octet(unsigned vector, int index) {
    const uint4 a = load_shared_16(vector + index * 32),
                b = load_shared_16(vector + index * 32 + 16);
    return {{__uint_as_float(a.x), __uint_as_float(a.y), __uint_as_float(a.z), __uint_as_float(a.w),
             __uint_as_float(b.x), __uint_as_float(b.y), __uint_as_float(b.z),
             __uint_as_float(b.w)}};
}

SPION_DEVICE float sum_over_quad(float value) {
    value += __shfl_xor_sync(0xFFFFFFFFU, value, 1);
    return value + __shfl_xor_sync(0xFFFFFFFFU, value, 2);
}

// The lane's places in a queue of rows in shared memory of its own, which nobody else touches, so
// that no synchronisation is needed beyond the wait for the copies: kTensors of them, two stages.
template <int kTensors>
struct LaneQueue {
    enum : int { kStageBytes = kTensors * 2 * kGroups * 512, kWarpBytes = 2 * kStageBytes };
    unsigned start;  // of the warp's

    __device__ __forceinline__ unsigned at(int stage, int tensor, int half, int group) const {
        const int octet = (tensor * 2 + half) * kGroups + group;
        return start + stage % 2 * kStageBytes + octet * 512 + (int)threadIdx.x % 32 * 16;
    }
    // Rows [first, first + 16) below `end`; zeros beyond.
    __device__ __forceinline__ void fetch(int stage, int tensor, const void* source, unsigned first,
                                          unsigned end) const {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const unsigned row = first + lane_row() + 8 * half;
#pragma unroll
            for (int group = 0; group < kGroups; ++group) {
                cp_async_16(at(stage, tensor, half, group),
                            (const uint4*)source + row * kChannelChunks + 4 * group + lane_octet(),
                            row < end);
            }
        }
    }
    __device__ __forceinline__ WarpRows rows(int stage, int tensor) const {
        WarpRows rows;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
#pragma unroll
            for (int group = 0; group < kGroups; ++group) {
                rows.octet[half][group] = load_shared_16(at(stage, tensor, half, group));
            }
        }
        return rows;
    }
    // Replaces them, until the stage's next fetch.
    __device__ __forceinline__ void keep(int stage, int tensor, const WarpRows& rows) const {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
#pragma unroll
            for (int group = 0; group < kGroups; ++group) {
                store_shared_16(at(stage, tensor, half, group), rows.octet[half][group]);
            }
        }
    }
};

// The same for words, of which every lane has kWords a stage.
template <int kWords>
struct WordQueue {
    enum : int { kStageBytes = kWords * 128, kWarpBytes = 2 * kStageBytes };
    unsigned start;  // of the warp's

    __device__ __forceinline__ unsigned at(int stage, int word) const {
        return start + stage % 2 * kStageBytes + word * 128 + (int)threadIdx.x % 32 * 4;
    }
    // A zero where there is nothing.
    __device__ __forceinline__ void fetch(int stage, int word, const void* source,
                                          bool present) const {
        cp_async_4(at(stage, word), source, present);
    }
    __device__ __forceinline__ unsigned word(int stage, int word) const {
        return load_shared_word(at(stage, word));
    }
};

// Of rows g and g + 8.
struct Statistics {
    float mean[2], rstd[2];
};

SPION_DEVICE Statistics statistics_of(const WarpRows& x) {
    Statistics result;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float sum = 0.0F, squares = 0.0F;
#pragma unroll
        for (const uint4& packed : x.octet[half]) {
            const Octet octet = unpack(packed);
#pragma unroll
            for (const float value : octet.value) sum += value;
        }
        const float mean = sum_over_quad(sum) * (1.0F / kChannels);
#pragma unroll
        for (const uint4& packed : x.octet[half]) {
            const Octet octet = unpack(packed);
#pragma unroll
            for (const float value : octet.value) squares += (value - mean) * (value - mean);
        }
        result.mean[half] = mean;
        result.rstd[half] = rsqrtf(sum_over_quad(squares) * (1.0F / kChannels) + kEpsilon);
    }
    return result;
}

// (x - mean) * rstd.
SPION_DEVICE Octet unit_of(const uint4& packed, float mean, float rstd) {
    Octet octet = unpack(packed);
#pragma unroll
    for (float& value : octet.value) value = (value - mean) * rstd;
    return octet;
}

SPION_DEVICE WarpRows normalise(const WarpRows& x, const Statistics& of, unsigned gamma,
                                unsigned beta) {
    WarpRows result;
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
        const Octet scale = vector_octet(gamma, 4 * group + lane_octet());
        const Octet shift = vector_octet(beta, 4 * group + lane_octet());
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            Octet unit = unit_of(x.octet[half][group], of.mean[half], of.rstd[half]);
#pragma unroll
            for (int e = 0; e < 8; ++e) {
                unit.value[e] = unit.value[e] * scale.value[e] + shift.value[e];
            }
            result.octet[half][group] = pack(unit);
        }
    }
    return result;
}

SPION_DEVICE void store_statistics(const Statistics& of, float* mean, float* rstd, unsigned first,
                                   unsigned end) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const unsigned row = first + lane_row() + 8 * half;
        if (lane_octet() == 0 && row < end) {
            mean[row] = of.mean[half];
            rstd[row] = of.rstd[half];
        }
    }
}
