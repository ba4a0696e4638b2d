// A bias by relative position (ir/attention.h), for all CUDA bodies: what it adds to raw scores, and
// the sums of its gradient. Key j is at distance j - (i + diagonal) from query i, clipped to
// [-R, R]; R is kRelativeBias.
#ifndef SPION_RELATIVE_BIAS_CUH
#define SPION_RELATIVE_BIAS_CUH

#include "kernels/attention_arguments.h"
#include "kernels/cuda/common/contract.cuh"
#include "kernels/cuda/common/ptx.cuh"
#include "kernels/cuda/common/sequences.cuh"
#include "kernels/cuda/common/tile.cuh"

enum : int { kBiasEntries = 2 * kRelativeBias + 1 };

// How many accumulator tiles of [16, 8 * kTiles] are looked at together, whose columns lie side by side
// in memory, as kTogether columns do.
template <int kTiles, int kTogether>
struct BiasRun {
    enum : int {
        kLength = kTiles * 8 <= kTogether ? (kTiles < 8 ? kTiles : 8)
                                          : (kTogether < 64 ? kTogether / 8 : 8)
    };
};

// A query head's biases, by distance.
struct BiasTable {
    const float* beside;  // of distance 0

    // To scores [16, 8 * kTiles], the bias of each. row: of the first row, queries counted from
    // the diagonal on, or, where rows are keys, keys from minus it on; position_of(n): of the first of
    // columns [16 n, + 16), kTogether of which lie side by side.
    template <bool kRowsAreKeys, int kTogether, int kTiles, typename PositionOf>
    __device__ __forceinline__ void add(float (&scores)[kTiles][4], int row,
                                        const PositionOf& position_of) const {
        if constexpr (kRelativeBias > 0) {
            constexpr int kRun = BiasRun<kTiles, kTogether>::kLength, kReach = (int)kRelativeBias;
            static_assert(kTiles % kRun == 0 && kRun % 2 == 0);
#pragma unroll
            for (int first = 0; first < kTiles; first += kRun) {
                const int ahead = position_of(first / 2) - row;  // of the first column and row
                const int least = ahead - 15, most = ahead + 8 * kRun - 1;
                if (most <= -kReach || least >= kReach) {
                    const bool behind = kRowsAreKeys ? least >= kReach : most <= -kReach;
                    const float bias = beside[behind ? -kReach : kReach];
#pragma unroll
                    for (int j = 0; j < kRun; ++j) {
#pragma unroll
                        for (int i = 0; i < 4; ++i) add_to(scores[first + j][i], bias);
                    }
                } else if (least >= -kReach && most <= kReach) {
                    add_run<kRowsAreKeys, false, kRun>(scores, first, ahead);
                } else {
                    add_run<kRowsAreKeys, true, kRun>(scores, first, ahead);
                }
            }
        }
    }

  private:
    static __device__ __forceinline__ void add_to(float& score, float bias) {
        score = __fmaf_rn(bias, 1.0F / kScale, score);
    }

    // Rows that lie 8 apart have the same bias in columns 8 apart, and share what is read.
    template <bool kRowsAreKeys, bool kClipped, int kRun, int kTiles>
    __device__ __forceinline__ void add_run(float (&scores)[kTiles][4], int first,
                                            int ahead) const {
        constexpr int kReach = (int)kRelativeBias;
        const int of_lane = ahead + lane_index() % 4 * 2 - lane_index() / 4;
#pragma unroll
        for (int j = -1; j < kRun; ++j) {
#pragma unroll
            for (int odd = 0; odd < 2; ++odd) {
                const int columns_ahead = of_lane + 8 * j + odd;
                const int distance = kRowsAreKeys ? -columns_ahead : columns_ahead;
                const float bias =
                    beside[kClipped ? min(max(distance, -kReach), kReach) : distance];
                if (j >= 0) add_to(scores[first + j][odd], bias);
                if (j + 1 < kRun) add_to(scores[first + j + 1][2 + odd], bias);
            }
        }
    }
};

SPION_DEVICE BiasTable bias_table(const SpionAttentionArguments& args, int query_head) {
    if constexpr (kRelativeBias == 0) return {};
    return {args.relative_bias + (long long)query_head * kBiasEntries + kRelativeBias};
}

// Of all 32 lanes.
SPION_DEVICE float sum_of_warp(float x) {
#pragma unroll
    for (int lanes = 1; lanes < 32; lanes *= 2) x += __shfl_xor_sync(0xFFFFFFFFU, x, lanes);
    return x;
}

// The gradient of a head's biases by the scores of a warp's 16 query rows: [2R + 1] sums in global
// memory, where no other warp writes, but for the two of distances that are clipped, which lanes keep
// until the end. The warp adds one tile of dS after another, so that the order of its sums is that of
// the walk.
struct BiasGradient {
    float* sums;         // null where nobody wants them, or the rows do not exist
    float below, above;  // this lane's, at distances of at most -R and of at least R

    __device__ __forceinline__ void start() {
        if constexpr (kRelativeBias > 0) {
            if (sums == nullptr) return;
            for (int entry = lane_index(); entry < kBiasEntries; entry += 32) sums[entry] = 0.0F;
            __syncwarp();
        }
    }

    // Adds dS [16, 8 * kTiles]; row and position_of as BiasTable::add has them, rows being queries.
    template <int kTogether, int kTiles, typename PositionOf>
    __device__ __forceinline__ void add(const float (&gradient)[kTiles][4], int row,
                                        const PositionOf& position_of) {
        if constexpr (kRelativeBias > 0) {
            if (sums == nullptr) return;
            constexpr int kRun = BiasRun<kTiles, kTogether>::kLength, kReach = (int)kRelativeBias;
            static_assert(kTiles % kRun == 0 && kRun % 2 == 0);
#pragma unroll
            for (int first = 0; first < kTiles; first += kRun) {
                const int position = position_of(first / 2);
                if (position >= kKeyLength) continue;  // the step has no such columns
                const int distance = position - row;   // of the first column and row
                if (distance + 8 * kRun - 1 <= -kReach) {
                    below += sum_of_run<kRun>(gradient, first);
                } else if (distance - 15 >= kReach) {
                    above += sum_of_run<kRun>(gradient, first);
                } else {
                    add_diagonals<kRun>(gradient, first, distance);
                    __syncwarp();
                }
            }
        }
    }

    __device__ __forceinline__ void finish() {
        if constexpr (kRelativeBias > 0) {
            if (sums == nullptr) return;
            const float first = sum_of_warp(below), last = sum_of_warp(above);
            if (lane_index() != 0) return;
            sums[0] = first;
            sums[kBiasEntries - 1] = last;
        }
    }

  private:
    template <int kRun, int kTiles>
    static __device__ __forceinline__ float sum_of_run(const float (&gradient)[kTiles][4],
                                                       int first) {
        float sum[4] = {};  // no add waits for the one before it
#pragma unroll
        for (int j = 0; j < kRun; ++j) {
#pragma unroll
            for (int i = 0; i < 4; ++i) sum[i] += gradient[first + j][i];
        }
        return (sum[0] + sum[1]) + (sum[2] + sum[3]);
    }

    // Adds the diagonals of [16, 8 * kRun] up. On the way lane 4 r + c has sums of the elements whose
    // column is y more than their row, less r: y = 8 n + 2 c + odd - 16 at [n][odd]. Each round adds the
    // rows of r + 1, 2 and 4 to those of r, and so takes them from as many columns further.
    template <int kRun, int kTiles>
    __device__ __forceinline__ void add_diagonals(const float (&gradient)[kTiles][4], int first,
                                                  int distance) {
        constexpr int kChunks = kRun + 2, kHalf = kChunks / 2;
        const int lane = lane_index(), quarter = lane % 4;
        float partial[kChunks + 1][2];
#pragma unroll
        for (int n = 0; n <= kChunks; ++n) {
#pragma unroll
            for (int odd = 0; odd < 2; ++odd) {
                const float of_row = n >= 2 && n < kChunks ? gradient[first + n - 2][odd] : 0.0F;
                const float of_eighth =
                    n >= 1 && n <= kRun ? gradient[first + n - 1][2 + odd] : 0.0F;
                partial[n][odd] = of_row + of_eighth;
            }
        }
        // Of row r + 1: columns one further, the odd ones in the same lane.
        const int next = (lane / 4 + 1) * 4 % 32, further = (quarter + 1) % 4;
#pragma unroll
        for (int n = 0; n < kChunks; ++n) {
            const float even = quarter == 0 ? partial[n + 1][0] : partial[n][0];
            const float odd = partial[n][1];
            partial[n][0] += __shfl_sync(0xFFFFFFFFU, odd, next + quarter);
            partial[n][1] += __shfl_sync(0xFFFFFFFFU, even, next + further);
        }
        const int second = (lane / 4 + 2) * 4 % 32 + further;
#pragma unroll
        for (int n = 0; n < kChunks; ++n) {
#pragma unroll
            for (int odd = 0; odd < 2; ++odd) {
                const float given = quarter == 0 ? partial[n + 1][odd] : partial[n][odd];
                partial[n][odd] += __shfl_sync(0xFFFFFFFFU, given, second);
            }
        }
        // Row 4's lanes take over the upper half of what is then left, as those of row 0 would have it.
        const bool upper = (lane & 16) != 0;
        float total[kHalf][2];
#pragma unroll
        for (int n = 0; n < kHalf; ++n) {
#pragma unroll
            for (int odd = 0; odd < 2; ++odd) {
                const int low = n, high = n + kHalf;
                const float low_moved = quarter < 2 ? partial[low + 1][odd] : partial[low][odd];
                const float high_moved = quarter < 2 ? partial[high + 1][odd] : partial[high][odd];
                const float given = upper ? low_moved : partial[high][odd];
                const float kept = upper ? high_moved : partial[low][odd];
                total[n][odd] = kept + __shfl_sync(0xFFFFFFFFU, given, lane ^ 18);
            }
        }
        if (lane % 16 < 4) {
            const int start = upper ? 8 * kHalf + 2 * (quarter ^ 2) : 2 * quarter;
            add_totals<kHalf>(total, distance + start - 16);
        }
    }

    // total[n][odd]: of distance at + 8 n + odd.
    template <int kCount>
    __device__ __forceinline__ void add_totals(const float (&total)[kCount][2], int at) {
        constexpr int kReach = (int)kRelativeBias;
        float before[kCount][2];
#pragma unroll
        for (int n = 0; n < kCount; ++n) {
#pragma unroll
            for (int odd = 0; odd < 2; ++odd) {
                const int mine = at + 8 * n + odd;
                const bool inside = mine > -kReach && mine < kReach;
                before[n][odd] = inside ? sums[mine + kReach] : 0.0F;
            }
        }
#pragma unroll
        for (int n = 0; n < kCount; ++n) {
#pragma unroll
            for (int odd = 0; odd < 2; ++odd) {
                const int mine = at + 8 * n + odd;
                if (mine <= -kReach) {
                    below += total[n][odd];
                } else if (mine >= kReach) {
                    above += total[n][odd];
                } else {
                    sums[mine + kReach] = before[n][odd] + total[n][odd];
                }
            }
        }
    }
};

// Of the 16 query rows from `row` on, a multiple of 16.
SPION_DEVICE BiasGradient bias_gradient(const SpionAttentionArguments& args, int batch, int head,
                                        int row) {
    static_assert(SPION_BIAS_ROWS == 16, "rows of a warp");
    if constexpr (kRelativeBias == 0) return {};
    if (args.d_relative_bias == nullptr || row >= query_limit(args, batch)) {
        return {nullptr, 0.0F, 0.0F};
    }
    constexpr long long kStrips = ((long long)kLength + 15) / 16;
    const long long strip = ((long long)batch * kHeads + head) * kStrips + row / 16;
    return {args.d_relative_bias + (kHeads + strip) * kBiasEntries, 0.0F, 0.0F};
}

#endif
