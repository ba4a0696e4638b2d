// y[b, :] = (1 / L) * sum of x[b, l, :] over l < lengths[b], or x[b, 0, :]; one thread block a sample.
#pragma once

#include "kernels/cuda/train/contract.cuh"
#include "kernels/cuda/train/rows.cuh"

using Layout = RowLayout<kChannels>;
static_assert(Layout::kTiles == 1, "a row must fit into the registers of a warp");

extern "C" __global__ void __launch_bounds__(kThreads)
    masked_mean_forward(const __grid_constant__ SpionMaskedMeanArguments args) {
    constexpr int kRowsInFlight = Layout::kParts == 1 ? 4 : 2;
    const int length = args.first_only ? 1 : args.lengths[blockIdx.x];
    const long long first = static_cast<long long>(blockIdx.x) * args.length;
    Octet sums[Layout::kParts] = {};
    for (int base = Layout::group(); base < length; base += kRowsInFlight * Layout::kGroups) {
        uint4 x[kRowsInFlight][Layout::kParts];
#pragma unroll
        for (int n = 0; n < kRowsInFlight * Layout::kParts; ++n) {
            const int flight = n / Layout::kParts, part = n % Layout::kParts;
            const int row = base + flight * Layout::kGroups;
            const int octet = Layout::octet(0, part);
            x[flight][part] = load_packed(args.x, (first + row) * Layout::kOctets + octet,
                                          row < length && Layout::has(octet));
        }
#pragma unroll
        for (int n = 0; n < kRowsInFlight * Layout::kParts; ++n) {
            const int part = n % Layout::kParts;
            const Octet values = unpack(x[n / Layout::kParts][part]);
#pragma unroll
            for (int e = 0; e < 8; ++e) sums[part].value[e] += values.value[e];
        }
    }
    float* out = args.y + static_cast<long long>(blockIdx.x) * kChannels;
    const float scale = args.first_only ? 1.0F : 1.0F / static_cast<float>(args.length);
    sum_over_groups<Layout>(sums, 0, scale, out);
}
