// A bias by relative position (ir/attention.h), for all CUDA bodies: what it adds to raw scores, and
// the sums of its gradient. Key j is at distance j - (i + kDiagonal) from query i, clipped to
// [-R, R]; R is kRelativeBias.
#ifndef SPION_RELATIVE_BIAS_CUH
#define SPION_RELATIVE_BIAS_CUH

#include "kernels/attention_arguments.h"
#include "kernels/cuda/common/contract.cuh"
#include "kernels/cuda/common/ptx.cuh"
#include "kernels/cuda/common/sequences.cuh"
#include "kernels/cuda/common/tile.cuh"

enum : int { kBiasEntries = 2 * kRelativeBias + 1 };

// A query head's biases, by distance.
struct BiasTable {
    const float* beside;  // of distance 0

    // To scores [16, 8 * kTiles], the bias of each. row: of the first row, queries counted from
    // kDiagonal on, or, where rows are keys, keys from -kDiagonal on; position_of(n): of the first of
    // columns [16 n, + 16).
    template <bool kRowsAreKeys, int kTiles, typename PositionOf>
    __device__ __forceinline__ void add(float (&scores)[kTiles][4], int row,
                                        const PositionOf& position_of) const {
        if constexpr (kRelativeBias > 0) {
            const int lane_row = row + lane_index() / 4;
#pragma unroll
            for (int n = 0; n < kTiles / 2; ++n) {
                const int ahead = position_of(n) + lane_index() % 4 * 2 - lane_row;
#pragma unroll
                for (int j = 0; j < 2; ++j) {
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        const int columns_ahead = ahead + 8 * j + i % 2 - i / 2 * 8;
                        const int distance = kRowsAreKeys ? -columns_ahead : columns_ahead;
                        const int clipped =
                            min(max(distance, -(int)kRelativeBias), (int)kRelativeBias);
                        scores[2 * n + j][i] =
                            __fmaf_rn(beside[clipped], 1.0F / kScale, scores[2 * n + j][i]);
                    }
                }
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

// The gradient of a head's biases by the scores of a warp's 16 query rows, in global memory: no other
// warp writes there, and the warp adds one [16, 16] of dS after another, so that the order of its sums
// is that of the walk.
struct BiasGradient {
    float* sums;  // [2R + 1]; null where nobody wants them, or the rows do not exist

    __device__ __forceinline__ void set_zero() const {
        if constexpr (kRelativeBias > 0) {
            if (sums == nullptr) return;
            for (int entry = lane_index(); entry < kBiasEntries; entry += 32) sums[entry] = 0.0F;
            __syncwarp();
        }
    }

    // Adds dS [16, 8 * kTiles]; row and position_of as BiasTable::add has them, rows being queries.
    template <int kTiles, typename PositionOf>
    __device__ __forceinline__ void add(const float (&gradient)[kTiles][4], int row,
                                        const PositionOf& position_of) const {
        if constexpr (kRelativeBias > 0) {
            if (sums == nullptr) return;
#pragma unroll
            for (int n = 0; n < kTiles / 2; ++n) {
                const int position = position_of(n);
                if (position >= kKeyLength) continue;  // the step has no such columns
                const int distance = position - row;   // of the first row and column
                if (distance + 15 <= -(int)kRelativeBias || distance - 15 >= kRelativeBias) {
                    add_to(gradient[2 * n], gradient[2 * n + 1],
                           distance < 0 ? 0 : kBiasEntries - 1);
                } else {
                    add_diagonals(gradient[2 * n], gradient[2 * n + 1], distance);
                }
                __syncwarp();
            }
        }
    }

  private:
    // All of [16, 16] elements have the bias `entry`.
    __device__ __forceinline__ void add_to(const float (&left)[4], const float (&right)[4],
                                           int entry) const {
        float sum = 0.0F;
#pragma unroll
        for (int i = 0; i < 4; ++i) sum += left[i] + right[i];
        sum = sum_of_warp(sum);
        if (lane_index() == 0) sums[entry] += sum;
    }

    // Lane l sums the elements whose column is l - 15 more than their row, downwards; the diagonals
    // that are clipped to one distance are added up before they are added to it.
    __device__ __forceinline__ void add_diagonals(const float (&left)[4], const float (&right)[4],
                                                  int distance) const {
        const int diagonal = lane_index() - 15;
        float sum = 0.0F;
#pragma unroll
        for (int row = 0; row < 16; ++row) {
            const int column = row + diagonal;
            const int owner = row % 8 * 4 + (column & 7) / 2, first = row / 8 * 2;
            const float even_left = __shfl_sync(0xFFFFFFFFU, left[first], owner);
            const float odd_left = __shfl_sync(0xFFFFFFFFU, left[first + 1], owner);
            const float even_right = __shfl_sync(0xFFFFFFFFU, right[first], owner);
            const float odd_right = __shfl_sync(0xFFFFFFFFU, right[first + 1], owner);
            const bool odd = (column & 1) != 0;
            const float of_left = odd ? odd_left : even_left;
            const float of_right = odd ? odd_right : even_right;
            if (column >= 0 && column < 16) sum += column < 8 ? of_left : of_right;
        }
        const int mine = distance + diagonal;
        const bool below = mine <= -(int)kRelativeBias, above = mine >= kRelativeBias;
        if (distance - 15 <= -(int)kRelativeBias) {
            const float clipped = sum_of_warp(below ? sum : 0.0F);
            if (lane_index() == 0) sums[0] += clipped;
        }
        if (distance + 16 >= kRelativeBias) {  // lane 31, whose sum is 0, included
            const float clipped = sum_of_warp(above ? sum : 0.0F);
            if (lane_index() == 0) sums[kBiasEntries - 1] += clipped;
        }
        if (!below && !above && diagonal < 16) sums[mine + kRelativeBias] += sum;
    }
};

// Of the 16 query rows from `row` on, a multiple of 16.
SPION_DEVICE BiasGradient bias_gradient(const SpionAttentionArguments& args, int batch, int head,
                                        int row) {
    static_assert(SPION_BIAS_ROWS == 16, "rows of a warp");
    if constexpr (kRelativeBias == 0) return {};
    if (args.d_relative_bias == nullptr || row >= query_limit(args, batch)) return {nullptr};
    constexpr long long kStrips = ((long long)kLength + 15) / 16;
    const long long strip = ((long long)batch * kHeads + head) * kStrips + row / 16;
    return {args.d_relative_bias + (kHeads + strip) * kBiasEntries};
}

#endif
