// The gradients of a sample's two pooled sequences a and b from those of [a, b, a * b, a - b]. One
// thread block a sample.
#pragma once

#include "kernels/cuda/train/contract.cuh"

extern "C" __global__ void __launch_bounds__(kThreads)
    pair_features_backward(const __grid_constant__ SpionPairFeaturesArguments args) {
    const long long sample = blockIdx.x;
    const long long other = static_cast<long long>(args.batch) * kChannels;  // from a to b
    const float* a = args.pooled + sample * kChannels;
    const float* d_y = args.d_y + 4 * sample * kChannels;
    float* d_a = args.d_pooled + sample * kChannels;
    for (int c = threadIdx.x; c < kChannels; c += kThreads) {
        const float d_product = d_y[2 * kChannels + c], d_difference = d_y[3 * kChannels + c];
        d_a[c] = d_y[c] + d_product * a[other + c] + d_difference;
        d_a[other + c] = d_y[kChannels + c] + d_product * a[c] - d_difference;
    }
}
