// y = dropout(gelu(x)), elementwise; rows matter to the work items only.
#pragma once

#include "kernels/cuda/train/contract.cuh"
#include "kernels/cuda/train/dropout.cuh"
#include "kernels/cuda/train/gelu_terms.cuh"
#include "kernels/cuda/train/rows.cuh"

extern "C" __global__ void __launch_bounds__(kThreads)
    gelu_dropout_forward(const __grid_constant__ SpionGeluArguments args) {
    constexpr int kOctetsInFlight = 4;
    const SpionDropout dropout = spion_dropout_now(args.dropout);
    const RowItem item(args.rows);
    const int count = item.count * (kChannels / 8);
    const long long first = item.first * (kChannels / 8);
    for (int base = threadIdx.x; base < count; base += kOctetsInFlight * kThreads) {
        uint4 packed[kOctetsInFlight];
#pragma unroll
        for (int flight = 0; flight < kOctetsInFlight; ++flight) {
            const int octet = base + flight * kThreads;
            packed[flight] = load_packed(args.x, first + octet, octet < count);
        }
#pragma unroll
        for (int flight = 0; flight < kOctetsInFlight; ++flight) {
            const int octet = base + flight * kThreads;
            Octet x = unpack(packed[flight]);
#pragma unroll
            for (float& value : x.value) value *= normal_terms(value).distribution;
            drop(x, first + octet, dropout);
            store_packed(args.y, first + octet, pack(x), octet < count);
        }
    }
}
