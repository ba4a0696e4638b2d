// out[c] = sum over i of partials[i, c] for eight columns a work item, of several sums. The tree is fixed by the
// geometry: thread (h, g) adds the rows g, g + kRowGroups, ... of four columns, the lanes of a warp
// are added by shuffles, and the warps in order.
#pragma once

#include "kernels/cuda/train/contract.cuh"
#include "kernels/cuda/train/rows.cuh"

static_assert(kSpionSumColumnsPerItem == 8, "two float4 a row");

extern "C" __global__ void __launch_bounds__(kThreads)
    sum_partials(const __grid_constant__ SpionSumPartialsArguments args) {
    constexpr int kRowGroups = kThreads / 2;
    const int half = threadIdx.x % 2;
    const int warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;
    int index = 0;
    long long column = static_cast<long long>(blockIdx.x) * kSpionSumColumnsPerItem;
    while (column >= args.sums[index].columns) column -= args.sums[index++].columns;
    const SpionPartialSum& sum_of = args.sums[index];
    const float* source = sum_of.partials + column + 4 * half;
    float sum[4] = {};
#pragma unroll 8
    for (long long i = threadIdx.x / 2; i < sum_of.count; i += kRowGroups) {
        const float4 row = *reinterpret_cast<const float4*>(source + i * sum_of.stride);
        sum[0] += row.x;
        sum[1] += row.y;
        sum[2] += row.z;
        sum[3] += row.w;
    }
    __shared__ float warp_sums[kWarps][kSpionSumColumnsPerItem];
#pragma unroll
    for (int c = 0; c < 4; ++c) {
#pragma unroll
        for (int offset = 2; offset < kWarpLanes; offset *= 2) {
            sum[c] += __shfl_xor_sync(kAllLanes, sum[c], offset);
        }
        if (lane < 2) warp_sums[warp][4 * half + c] = sum[c];
    }
    __syncthreads();
    if (threadIdx.x < kSpionSumColumnsPerItem) {
        float total = 0.0F;
        for (int w = 0; w < kWarps; ++w) total += warp_sums[w][threadIdx.x];
        sum_of.out[column + threadIdx.x] = total;
    }
}
