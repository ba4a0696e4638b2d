// d_x[b, l, :] = d_y[b, :] / L for l < lengths[b], else 0; or d_y[b, :] for l = 0.
#pragma once

#include "kernels/cuda/train/contract.cuh"
#include "kernels/cuda/train/rows.cuh"

extern "C" __global__ void __launch_bounds__(kThreads)
    masked_mean_backward(const __grid_constant__ SpionMaskedMeanArguments args) {
    constexpr int kOctets = kChannels / 8;
    const RowItem item(static_cast<long long>(args.batch) * args.length);
    const float scale = args.first_only ? 1.0F : 1.0F / static_cast<float>(args.length);
    for (int n = threadIdx.x; n < item.count * kOctets; n += kThreads) {
        const long long row = item.first + n / kOctets;
        const int octet = n % kOctets;
        const int sample = static_cast<int>(row / args.length);
        const int position = static_cast<int>(row - static_cast<long long>(sample) * args.length);
        const int rows = args.first_only ? 1 : args.lengths[sample];
        Octet gradient =
            load_octet(args.d_y, static_cast<long long>(sample) * kOctets + octet, position < rows);
#pragma unroll
        for (float& value : gradient.value) value *= scale;
        store_packed(args.d_x, row * kOctets + octet, pack(gradient), true);
    }
}
