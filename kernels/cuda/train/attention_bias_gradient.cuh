// d_relative_bias[h, n] = sum over samples b and strips of SPION_BIAS_ROWS query rows of what
// attention_query_gradient has summed (docs/ir.md). A thread block has 32 entries of a head, a lane
// each; its warps take strips in turns, and are added up in their order.
#pragma once

#include "kernels/attention_arguments.h"
#include "kernels/cuda/train/contract.cuh"

extern "C" __global__ void __launch_bounds__(kThreads)
    attention_bias_gradient(const __grid_constant__ SpionAttentionArguments args) {
    constexpr int kItemsOfHead = (kBiasEntries + 31) / 32;
    constexpr int kStrips = (kLength + SPION_BIAS_ROWS - 1) / SPION_BIAS_ROWS;
    const int head = (int)blockIdx.x / kItemsOfHead, thread = (int)threadIdx.x;
    const int lane = thread % 32, warp = thread / 32;
    const int entry = (int)blockIdx.x % kItemsOfHead * 32 + lane;
    float sum = 0.0F;
    for (int batch = 0; entry < kBiasEntries && batch < args.batch; ++batch) {
        const int rows = args.starts == nullptr
                             ? (int)kLength
                             : min((int)kLength, args.starts[batch + 1] - args.starts[batch]);
        const int count = (rows + SPION_BIAS_ROWS - 1) / SPION_BIAS_ROWS;
        const float* const of_head =
            args.bias_sums + ((long long)batch * kHeads + head) * kStrips * kBiasEntries + entry;
#pragma unroll 4
        for (int strip = warp; strip < count; strip += kThreads / 32) {
            sum += of_head[(long long)strip * kBiasEntries];
        }
    }
    const unsigned sums = shared_memory_start();
    store_shared_float(sums + thread * 4, sum);
    __syncthreads();
    if (warp != 0 || entry >= kBiasEntries) return;
    float total = 0.0F;
    for (int other = 0; other < kThreads / 32; ++other) {
        total += load_shared_float(sums + (other * 32 + lane) * 4);
    }
    args.d_relative_bias[(long long)head * kBiasEntries + entry] = total;
}
