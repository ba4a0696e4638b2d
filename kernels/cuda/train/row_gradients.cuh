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

// Columns [32 group, + 32) of 16 rows of a tile from row `row`, an operand in whose product the columns are
// in order.
template <int kChunks>
SPION_DEVICE Operand row_operand(unsigned tile, int row, int group, int lane_index) {
    const LaneChunk lane = lane_chunk_by_rows(lane_index);
    tile += tile_offset<kChunks>(row + lane.row, lane.chunk);
    Operand operand;
    ldmatrix_x4(operand.step[0], further(tile, 4 * group));
    ldmatrix_x4(operand.step[1], further(tile, 4 * group + 2));
    return operand;
}

// The statistics of a warp's rows in its queue of words: words [0, 4) of a stage.
enum : int { kStatisticWords = 4 };
template <typename Queue>
SPION_DEVICE void fetch_statistics(const Queue& queue, int stage, const float* mean,
                                   const float* rstd, unsigned first, unsigned end) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const unsigned row = first + lane_row() + 8 * half;
        queue.fetch(stage, half, mean + row, row < end);
        queue.fetch(stage, 2 + half, rstd + row, row < end);
    }
}
template <typename Queue>
SPION_DEVICE Statistics statistics(const Queue& queue, int stage) {
    Statistics result;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        result.mean[half] = __uint_as_float(queue.word(stage, half));
        result.rstd[half] = __uint_as_float(queue.word(stage, 2 + half));
    }
    return result;
}

// Rows of unit mean and variance, rounded.
SPION_DEVICE WarpRows units_of(const WarpRows& x, const Statistics& of) {
    WarpRows result;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
            result.octet[half][group] =
                pack(unit_of(x.octet[half][group], of.mean[half], of.rstd[half]));
        }
    }
    return result;
}

// A warp's rows into its rows of a tile.
SPION_DEVICE void store_narrow(unsigned tile, int warp_row, const WarpRows& rows) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
            store_shared_16(octet_address<kChannelChunks>(tile, warp_row + lane_row(), group) +
                                8 * h * kChannelChunks * 16,
                            rows.octet[h][group]);
        }
    }
}

// d, the gradient of the norm's output, becomes that of its input x: with u = (x - mean) * rstd and
// s = d * gamma, rstd * (s - mean(s) - u * mean(s * u)), where all but s is one multiple of x and a sum.
SPION_DEVICE void norm_gradient(WarpSums& d, const WarpRows& x, const Statistics& of,
                                unsigned gamma) {
    float sum[2] = {}, product[2] = {};  // of s and of s * (x - mean)
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
        const Octet scale = vector_octet(gamma, 4 * group + lane_octet());
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const Octet octet = unpack(x.octet[half][group]);
#pragma unroll
            for (int e = 0; e < 8; ++e) {
                float& value = d.acc[group][e / 2][2 * half + e % 2];
                value *= scale.value[e];
                sum[half] += value;
                product[half] += value * (octet.value[e] - of.mean[half]);
            }
        }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const float rstd = of.rstd[half];
        const float mean_sum = sum_over_quad(sum[half]) * (1.0F / kChannels);
        const float mean_product = sum_over_quad(product[half]) * (1.0F / kChannels);
        const float slope = -rstd * rstd * rstd * mean_product;
        const float start = -slope * of.mean[half] - rstd * mean_sum;
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
            const Octet octet = unpack(x.octet[half][group]);
#pragma unroll
            for (int e = 0; e < 8; ++e) {
                float& value = d.acc[group][e / 2][2 * half + e % 2];
                value = rstd * value + (slope * octet.value[e] + start);
            }
        }
    }
}

// What weight warps sum over rows for a map y = norm(x) W^T + b: from d, y's gradient, and u, the rows
// of unit mean and variance that the norm scales, S = d^T u and the column sums of d. In it is all that
// the norm's and the map's gradients are made of:
//     d_W = S diag(gamma) + d_b beta^T    d_gamma = column sums of W * S    d_beta = W^T d_b
// so that the row warps sum nothing. A warp has kTiles tiles of 16 outputs.
template <int kTiles>
struct NormMapSums {
    float weight[kTiles][kGroups * 4][4];  // S: transposed_operand's columns by kChannels
    float bias[4];                         // that of tile m in column m
    static_assert(kTiles <= 8);

    // Rows [16 k, + 16) of tiles of d and u.
    template <int kChunks>
    __device__ __forceinline__ void add(unsigned d, unsigned u, int k, int warp, int lane) {
        unsigned a[kTiles][4], b[4];
#pragma unroll
        for (int m = 0; m < kTiles; ++m) {
            transposed_operand<kChunks>(a[m], d, k, 2 * (kTiles * warp + m), lane);
            const unsigned column = lane_row() == m ? Element::pack(1.0F, 1.0F) : 0;
            Element::mma(bias, a[m], column, column);
        }
#pragma unroll
        for (int n = 0; n < kGroups * 4; n += 2) {
            column_operand<kChannelChunks>(b, u, k, n, lane);
#pragma unroll
            for (int m = 0; m < kTiles; ++m) {
                Element::mma(weight[m][n], a[m], b[0], b[1]);
                Element::mma(weight[m][n + 1], a[m], b[2], b[3]);
            }
        }
    }

    // Writes d_W [outputs, C] and d_b [outputs] and leaves the warp's parts of d_gamma and d_beta in
    // shared memory, room[warp]. `map`: W in global memory.
    __device__ __forceinline__ void store(int warp, const void* map, unsigned gamma, unsigned beta,
                                          float* d_weight, float* d_bias, unsigned room) const {
        const int g = lane_row(), t = lane_octet(), lane = (int)threadIdx.x % 32;
#pragma unroll
        for (int n = 0; n < kGroups * 4; ++n) {
            const int channel = 8 * n + 2 * t;
            const float2 scale = load_shared_float2(gamma + channel * 4);
            const float2 shift = load_shared_float2(beta + channel * 4);
            float sums[4] = {};  // of gamma's and of beta's gradient
#pragma unroll
            for (int i = 0; i < 2 * kTiles; ++i) {
                const int m = i / 2, h = i % 2;
                const int output = 16 * (kTiles * warp + m) + g + 8 * h;
                const float d_b =
                    __shfl_sync(0xFFFFFFFFU, bias[2 * h + m % 2], lane / 4 * 4 + m / 2);
                const float low = weight[m][n][2 * h], high = weight[m][n][2 * h + 1];
                const unsigned w = ((const unsigned*)map)[(output * kChannels + channel) / 2];
                *(float2*)(d_weight + output * kChannels + channel) =
                    make_float2(low * scale.x + d_b * shift.x, high * scale.y + d_b * shift.y);
                if (n == 0 && t == 0) d_bias[output] = d_b;
                sums[0] += Element::low(w) * low;
                sums[1] += Element::high(w) * high;
                sums[2] += Element::low(w) * d_b;
                sums[3] += Element::high(w) * d_b;
            }
#pragma unroll
            for (int i = 0; i < 4; ++i) {
#pragma unroll
                for (int lanes = 4; lanes < 32; lanes *= 2) {
                    sums[i] += __shfl_xor_sync(0xFFFFFFFFU, sums[i], lanes);
                }
                if (g == 0) {
                    store_shared_float(
                        room + ((2 * warp + i / 2) * kChannels + channel + i % 2) * 4, sums[i]);
                }
            }
        }
    }
};

// The weight warps' parts in a fixed order to out: d_gamma [C], then d_beta [C]. All threads of the
// block take part.
SPION_DEVICE void store_norm_sums(unsigned room, float* out) {
    for (int column = (int)threadIdx.x; column < 2 * kChannels; column += kThreads) {
        float sum = 0.0F;
        for (int w = 0; w < kWeightWarps; ++w) {
            sum += load_shared_float(room + (2 * w * kChannels + column) * 4);
        }
        out[column] = sum;
    }
}
