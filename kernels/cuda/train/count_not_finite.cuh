// How many of an item's gradients are no finite numbers.
#pragma once

#include "kernels/cuda/train/contract.cuh"

extern "C" __global__ void __launch_bounds__(kThreads)
    count_not_finite(const __grid_constant__ SpionLossScaleArguments args) {
    const long long first = static_cast<long long>(blockIdx.x) * kSpionAdamValuesPerItem;
    constexpr float kLargestFinite = 3.402823466e38F;
    int count = 0;
    for (int n = threadIdx.x; n < kSpionAdamValuesPerItem; n += kThreads) {
        const long long i = first + n;
        const float gradient = i < args.count ? args.gradients[i] : 0.0F;
        count += __syncthreads_count(!(fabsf(gradient) <= kLargestFinite));
    }
    const unsigned slot = args.now != nullptr ? args.now->slot : 0;
    if (threadIdx.x == 0) args.not_finite[slot * gridDim.x + blockIdx.x] = count;
}
