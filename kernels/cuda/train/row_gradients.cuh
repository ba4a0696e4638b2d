// The backward passes that keep rows in registers: eight warps take rows through the maps' gradients
// and leave what the weights' gradients are sums over in tiles of 64 rows; four others multiply those
// tiles and keep the sums in registers until the end. Each half of the eight has tiles of its own, so
// that one waits while the other computes.
#pragma once

#include "kernels/cuda/train/warp_rows.cuh"

enum : int { kRowWarps = 8, kWeightWarps = 4, kTileWarps = 4 };
enum : int { kTileRows = kWarpRows * kTileWarps };
enum : int { kMeeting = 32 * (kTileWarps + kWeightWarps) };  // threads at a barrier
#ifndef SPION_SAMPLE  // whose threads are those of other bodies
static_assert(kThreads == 32 * (kRowWarps + kWeightWarps));
#endif

// Barriers of place `place` of the tiles: it is filled, or may be filled again.
SPION_DEVICE int full(int place) {
    return 1 + 2 * place;
}
SPION_DEVICE int empty(int place) {
    return 2 + 2 * place;
}

// Bytes from the start of a tile whose rows have kChunks chunks, a multiple of 8. The permutation
// lets a quad's four chunks of two neighbouring rows pass the banks at once, and ldmatrix's of eight.
template <int kChunks>
SPION_DEVICE int tile_offset(int row, int chunk) {
    static_assert(kChunks % 8 == 0);
    const int swizzle = (row & 1) << 2 | (row & 2) | (row >> 2 & 1);
    return (row * kChunks + (chunk ^ swizzle)) * 16;
}

// Address of the lane's octet of a group of 32 columns in row `row` of a tile.
template <int kChunks>
SPION_DEVICE unsigned octet_address(unsigned tile, int row, int group) {
    return further(tile + tile_offset<kChunks>(row, lane_octet()), 4 * group);
}

// The 16 columns from chunk `chunk` of rows [16 k, + 16), transposed: an operand with a row for each.
template <int kChunks>
SPION_DEVICE void transposed_operand(unsigned (&a)[4], unsigned tile, int k, int chunk,
                                     int lane_index) {
    const LaneChunk lane = lane_chunk_by_chunks(lane_index);
    tile += tile_offset<kChunks>(lane.row, lane.chunk) + 16 * k * kChunks * 16;
    ldmatrix_x4_trans(a, further(tile, chunk));
}
// The same columns as the other operand: words 0 and 1 of the first eight, 2 and 3 of the others.
template <int kChunks>
SPION_DEVICE void column_operand(unsigned (&b)[4], unsigned tile, int k, int chunk,
                                 int lane_index) {
    const LaneChunk lane = lane_chunk_by_rows(lane_index);
    tile += tile_offset<kChunks>(lane.row, lane.chunk) + 16 * k * kChunks * 16;
    ldmatrix_x4_trans(b, further(tile, chunk));
}

// A lane's sums over rows, of its octets.
struct NormSums {
    Octet gamma[kGroups], beta[kGroups];
};

SPION_DEVICE Statistics load_statistics(const float* mean, const float* rstd, unsigned first,
                                        unsigned end) {
    Statistics result;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const unsigned row = first + lane_row() + 8 * half;
        result.mean[half] = row < end ? mean[row] : 0.0F;
        result.rstd[half] = row < end ? rstd[row] : 0.0F;
    }
    return result;
}

// d, the gradient of the norm's output, becomes that of its input x: with u = (x - mean) * rstd and
// s = d * gamma, rstd * (s - mean(s) - u * mean(s * u)).
SPION_DEVICE void norm_gradient(WarpSums& d, const WarpRows& x, const Statistics& of,
                                unsigned gamma, NormSums& sums) {
    float sum[2] = {}, product[2] = {};
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
        const Octet scale = vector_octet(gamma, 4 * group + lane_octet());
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const Octet unit = unit_of(x.octet[half][group], of.mean[half], of.rstd[half]);
#pragma unroll
            for (int e = 0; e < 8; ++e) {
                float& value = d.acc[group][e / 2][2 * half + e % 2];
                sums.gamma[group].value[e] += value * unit.value[e];
                sums.beta[group].value[e] += value;
                value *= scale.value[e];
                sum[half] += value;
                product[half] += value * unit.value[e];
            }
        }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const float mean_sum = sum_over_quad(sum[half]) * (1.0F / kChannels);
        const float mean_product = sum_over_quad(product[half]) * (1.0F / kChannels);
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
            const Octet unit = unit_of(x.octet[half][group], of.mean[half], of.rstd[half]);
#pragma unroll
            for (int e = 0; e < 8; ++e) {
                float& value = d.acc[group][e / 2][2 * half + e % 2];
                value = of.rstd[half] * (value - mean_sum - unit.value[e] * mean_product);
            }
        }
    }
}

// The row warps' sums in a fixed order to out: d_gamma [C], then d_beta [C]. `room`: shared memory
// that no warp needs any more, [kRowWarps, 2, C] floats. All threads of the block take part.
SPION_DEVICE void store_norm_sums(NormSums& sums, unsigned room, float* out) {
    const int warp = (int)threadIdx.x / 32;
    if (warp < kRowWarps) {
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
#pragma unroll
            for (int e = 0; e < 8; ++e) {
                float pair[2] = {sums.gamma[group].value[e], sums.beta[group].value[e]};
#pragma unroll
                for (int i = 0; i < 2; ++i) {
#pragma unroll
                    for (int lanes = 4; lanes < 32; lanes *= 2) {
                        pair[i] += __shfl_xor_sync(0xFFFFFFFFU, pair[i], lanes);
                    }
                    const int column = 32 * group + 8 * lane_octet() + e;
                    if (lane_row() == 0) {
                        store_shared_float(room + ((2 * warp + i) * kChannels + column) * 4,
                                           pair[i]);
                    }
                }
            }
        }
    }
    __syncthreads();
    for (int column = (int)threadIdx.x; column < 2 * kChannels; column += kThreads) {
        float sum = 0.0F;
        for (int w = 0; w < kRowWarps; ++w) {
            sum += load_shared_float(room + (2 * w * kChannels + column) * 4);
        }
        out[column] = sum;
    }
}
