// out[c] = sum over i of partials[i, c] for 32 columns a work item, of several sums. The tree is fixed by the
// geometry: thread (g, q) adds the rows g, g + kRowGroups, ... of four columns, so that eight threads read
// 128 bytes of a row; the lanes of a warp are added by shuffles, and the warps in order.
#pragma once

#include "kernels/cuda/train/contract.cuh"
#include "kernels/cuda/train/rows.cuh"

enum : int { kQuarters = kSpionSumColumnsPerBlock / 4, kRowGroups = kThreads / kQuarters };
static_assert(kQuarters < kWarpLanes && kWarpLanes % kQuarters == 0);

extern "C" __global__ void __launch_bounds__(kThreads)
    sum_partials(const __grid_constant__ SpionSumPartialsArguments args) {
    const int quarter = (int)threadIdx.x % kQuarters;
    const int warp = (int)threadIdx.x / kWarpLanes, lane = (int)threadIdx.x % kWarpLanes;
    int index = 0;
    long long block = blockIdx.x;
    while (block >= spion_sum_blocks(args.sums[index].columns)) {
        block -= spion_sum_blocks(args.sums[index++].columns);
    }
    const SpionPartialSum& sum_of = args.sums[index];
    const long long first = block * kSpionSumColumnsPerBlock, column = first + 4 * quarter;
    float sum[4] = {};
    if (column < sum_of.columns) {
        const float* source = sum_of.partials + column;
#pragma unroll 4
        for (long long i = (int)threadIdx.x / kQuarters; i < sum_of.count; i += kRowGroups) {
            const float4 row = *reinterpret_cast<const float4*>(source + i * sum_of.stride);
            sum[0] += row.x;
            sum[1] += row.y;
            sum[2] += row.z;
            sum[3] += row.w;
        }
    }
    __shared__ float warp_sums[kWarps][kSpionSumColumnsPerBlock];
#pragma unroll
    for (int c = 0; c < 4; ++c) {
#pragma unroll
        for (int offset = kQuarters; offset < kWarpLanes; offset *= 2) {
            sum[c] += __shfl_xor_sync(kAllLanes, sum[c], offset);
        }
        if (lane < kQuarters) warp_sums[warp][4 * quarter + c] = sum[c];
    }
    __syncthreads();
    if (threadIdx.x < kSpionSumColumnsPerBlock && first + threadIdx.x < sum_of.columns) {
        float total = 0.0F;
        for (int w = 0; w < kWarps; ++w) total += warp_sums[w][threadIdx.x];
        sum_of.out[first + threadIdx.x] = total;
    }
}
