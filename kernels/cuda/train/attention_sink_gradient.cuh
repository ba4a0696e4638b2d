// d_sinks[h] = - sum over samples b and rows i of exp(sinks[h] - LSE) * delta (docs/ir.md). A thread
// block has one head; its threads take rows in turns, and add up in a fixed order.
#pragma once

#include "kernels/attention_arguments.h"
#include "kernels/cuda/train/contract.cuh"

#define kSinkLog2E 1.44269504088896341F

extern "C" __global__ void __launch_bounds__(kThreads)
    attention_sink_gradient(const __grid_constant__ SpionAttentionArguments args) {
    const int head = (int)blockIdx.x, thread = (int)threadIdx.x;
    const float sink = args.sinks[head];
    float sum = 0.0F;
    for (int batch = 0; batch < args.batch; ++batch) {
        const long long first = ((long long)batch * kHeads + head) * kLength;
        const int rows = args.starts == nullptr
                             ? (int)kLength
                             : min((int)kLength, args.starts[batch + 1] - args.starts[batch]);
#pragma unroll 4
        for (int row = thread; row < rows; row += kThreads) {
            const float p = ex2_approx((sink - args.lse[first + row]) * kSinkLog2E);
            sum = __fmaf_rn(-p, args.delta[first + row], sum);
        }
    }
#pragma unroll
    for (int lanes = 1; lanes < 32; lanes *= 2) sum += __shfl_xor_sync(0xFFFFFFFFU, sum, lanes);
    const unsigned sums = shared_memory_start();
    if (thread % 32 == 0) store_shared_float(sums + thread / 32 * 4, sum);
    __syncthreads();
    if (thread != 0) return;
    float total = 0.0F;
    for (int warp = 0; warp < kThreads / 32; ++warp) total += load_shared_float(sums + warp * 4);
    args.d_sinks[head] = total;
}
