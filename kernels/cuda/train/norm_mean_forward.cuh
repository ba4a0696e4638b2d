// The mean over a sample's rows of their norm. A warp sums u, its rows of unit mean and variance, over
// every kWarps-th 16 rows; what is past the sample's length is zeros, whose u is zero too.
#pragma once

#include "kernels/cuda/train/warp_rows.cuh"

enum : int { kWarps = kThreads / 32 };
using Queue = LaneQueue<1>;

// Shared memory: the warps' queues, then their sums [kWarps, C].
SPION_DEVICE unsigned sums_of(int warp) {
    return shared_memory_start() + kWarps * Queue::kWarpBytes + warp * kChannels * 4;
}

SPION_DEVICE void add_units(Octet (&sums)[kGroups], const WarpRows& x) {
    const Statistics of = statistics_of(x);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
            add(sums[group], unit_of(x.octet[half][group], of.mean[half], of.rstd[half]));
        }
    }
}

// Those of a warp's lanes that have the same columns, to shared memory.
SPION_DEVICE void store_sums(Octet (&sums)[kGroups], int warp) {
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            float& sum = sums[group].value[e];
#pragma unroll
            for (int lanes = 4; lanes < 32; lanes *= 2) {
                sum += __shfl_xor_sync(0xFFFFFFFFU, sum, lanes);
            }
            if (lane_row() == 0) {
                store_shared_float(sums_of(warp) + (32 * group + 8 * lane_octet() + e) * 4, sum);
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(kThreads, 1)
    norm_mean_forward(const __grid_constant__ SpionNormMeanArguments args) {
    const int warp = (int)threadIdx.x / 32;
    const int rows = args.first_only != 0 ? 1 : args.lengths[blockIdx.x];
    const unsigned begin = blockIdx.x * (unsigned)args.length, end = begin + (unsigned)rows;
    const Queue queue{shared_memory_start() + warp * Queue::kWarpBytes};
    unsigned first = begin + kWarpRows * warp;
    queue.fetch(0, 0, args.x, first, end);
    cp_async_commit_group();
    Octet sums[kGroups] = {};
    for (int stage = 0; first < end; ++stage, first += kWarpRows * kWarps) {
        queue.fetch(stage + 1, 0, args.x, first + kWarpRows * kWarps, end);
        cp_async_commit_group();
        cp_async_wait_group<1>();
        add_units(sums, queue.rows(stage, 0));
    }
    store_sums(sums, warp);
    __syncthreads();
    const float scale = args.first_only != 0 ? 1.0F : 1.0F / (float)args.length;
    for (int c = (int)threadIdx.x; c < kChannels; c += kThreads) {
        float sum = 0.0F;
        for (int w = 0; w < kWarps; ++w) sum += load_shared_float(sums_of(w) + c * 4);
        const unsigned at = blockIdx.x * kChannels + c;
        args.units[at] = sum * scale;
        args.y[at] = sum * scale * args.gamma[c] + (float)rows * scale * args.beta[c];
    }
}
