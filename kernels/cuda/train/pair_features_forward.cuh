// y[b, :] = [a, b, a * b, a - b] of a sample's two pooled sequences. One thread block a sample.
#pragma once

#include "kernels/cuda/train/contract.cuh"

extern "C" __global__ void __launch_bounds__(kThreads)
    pair_features_forward(const __grid_constant__ SpionPairFeaturesArguments args) {
    const long long sample = blockIdx.x;
    const float* a = args.pooled + sample * kChannels;
    const float* b = a + static_cast<long long>(args.batch) * kChannels;
    float* y = args.y + 4 * sample * kChannels;
    for (int c = threadIdx.x; c < kChannels; c += kThreads) {
        y[c] = a[c];
        y[kChannels + c] = b[c];
        y[2 * kChannels + c] = a[c] * b[c];
        y[3 * kChannels + c] = a[c] - b[c];
    }
}
