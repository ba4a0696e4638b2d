// What the training step's kernels share: rows of 16-bit channels spread over the lanes of a warp,
// sixteen bytes (an octet) at a time, and sums over the rows of an item. Needs the constant
// kThreads of the generated source.
#pragma once

#include "kernels/cuda/common/ptx.cuh"
#include "kernels/cuda/train/contract.cuh"
#include "kernels/cuda/train/octet.cuh"
#include "kernels/train_arguments.h"

enum : int { kWarpLanes = 32 };
enum : int { kWarps = kThreads / kWarpLanes };
enum : unsigned int { kAllLanes = 0xFFFFFFFFU };

// Octet `index` of a buffer of Elements; zeros, and no access, unless `valid`.
__device__ __forceinline__ uint4 load_packed(const void* data, long long index, bool valid) {
    return valid ? static_cast<const uint4*>(data)[index] : make_uint4(0, 0, 0, 0);
}
__device__ __forceinline__ void store_packed(void* data, long long index, const uint4& packed,
                                             bool valid) {
    if (valid) static_cast<uint4*>(data)[index] = packed;
}
// Octet `index` of an fp32 buffer; zeros, and no access, unless `valid`.
__device__ __forceinline__ Octet load_octet(const float* data, long long index, bool valid) {
    Octet octet = {};
    if (valid) {
        const float4* source = reinterpret_cast<const float4*>(data) + 2 * index;
        const float4 a = source[0], b = source[1];
        octet = {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
    }
    return octet;
}
__device__ __forceinline__ void store_octet(float* data, long long index, const Octet& octet) {
    float4* target = reinterpret_cast<float4*>(data) + 2 * index;
    const float* v = octet.value;
    target[0] = make_float4(v[0], v[1], v[2], v[3]);
    target[1] = make_float4(v[4], v[5], v[6], v[7]);
}

// Lanes that share a row: all octets at once if they divide evenly, eight lanes at least for their
// 128 bytes, and no more than four octets a lane.
__device__ constexpr int lanes_of_row(int octets) {
    int lanes = 1;
    while (lanes < 8 && lanes < octets) lanes *= 2;
    while (lanes < kWarpLanes && octets % (2 * lanes) == 0) lanes *= 2;
    while (lanes < kWarpLanes && (octets + lanes - 1) / lanes > 4) lanes *= 2;
    return lanes;
}

// How rows of kWidth channels lie on the lanes of a warp: kLanes lanes share a row, each holds the
// octets lane, lane + kLanes, ... (kParts of them in a tile; only rows over 1024 wide take several
// tiles). A row of 64 channels takes 8 lanes: a warp reads four rows of 128 bytes at once.
template <int kWidth_>
struct RowLayout {
    enum : int { kWidth = kWidth_ };
    enum : int { kOctets = kWidth / 8 };
    static_assert(kWidth % 8 == 0, "rows are walked sixteen bytes at a time");

    enum : int { kLanes = lanes_of_row(kOctets) };
    enum : int { kOctetsPerLane = (kOctets + kLanes - 1) / kLanes };
    enum : int { kParts = kOctetsPerLane < 4 ? kOctetsPerLane : 4 };
    enum : int { kTiles = (kOctetsPerLane + kParts - 1) / kParts };
    // Rows that a thread block holds at once, one a group of lanes.
    enum : int { kGroups = kThreads / kLanes };

    __device__ static int group() { return static_cast<int>(threadIdx.x) / kLanes; }
    // The octet of a row that this thread holds, and whether the row has it.
    __device__ static int octet(int tile, int part) {
        return (tile * kParts + part) * kLanes + static_cast<int>(threadIdx.x) % kLanes;
    }
    __device__ static bool has(int octet) {
        return kOctets == kTiles * kParts * kLanes || octet < kOctets;
    }
};

// Sum over the lanes that share a row; every lane of the warp takes part.
template <typename Layout>
__device__ __forceinline__ float sum_over_row(float value) {
#pragma unroll
    for (int offset = Layout::kLanes / 2; offset > 0; offset /= 2) {
        value += __shfl_xor_sync(kAllLanes, value, offset);
    }
    return value;
}

// sums[part] of every group of lanes, added up over the block's groups in a fixed order and scaled,
// to out[kWidth]. All threads take part; the shared rows may be reused after the call.
template <typename Layout>
__device__ void sum_over_groups(Octet (&sums)[Layout::kParts], int tile, float scale, float* out) {
    constexpr int kTileWidth = 8 * Layout::kParts * Layout::kLanes;
    __shared__ float warp_sums[kWarps][kTileWidth];
    const int warp = static_cast<int>(threadIdx.x) / kWarpLanes;
    const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
#pragma unroll
    for (int part = 0; part < Layout::kParts; ++part) {
#pragma unroll
        for (int offset = Layout::kLanes; offset < kWarpLanes; offset *= 2) {
#pragma unroll
            for (float& value : sums[part].value) {
                value += __shfl_xor_sync(kAllLanes, value, offset);
            }
        }
        if (lane < Layout::kLanes) {
            store_octet(warp_sums[warp], part * Layout::kLanes + lane, sums[part]);
        }
    }
    __syncthreads();
    const int first = tile * kTileWidth;
    for (int c = threadIdx.x; c < kTileWidth && first + c < Layout::kWidth; c += kThreads) {
        float sum = 0.0F;
#pragma unroll
        for (int w = 0; w < kWarps; ++w) sum += warp_sums[w][c];
        out[first + c] = sum * scale;
    }
    __syncthreads();
}

// The rows of work item blockIdx.x: [first, first + count).
struct RowItem {
    long long first;
    int count;
    __device__ explicit RowItem(long long rows)
        : first(static_cast<long long>(blockIdx.x) * kSpionRowsPerItem),
          count(static_cast<int>(min(rows - first, static_cast<long long>(kSpionRowsPerItem)))) {}
};
