// partials[item, c] = sum of x[row, c] over the item's rows: the share of a bias gradient.
#pragma once

#include "kernels/cuda/train/contract.cuh"
#include "kernels/cuda/train/rows.cuh"

using Layout = RowLayout<kChannels>;

extern "C" __global__ void __launch_bounds__(kThreads)
    column_sums(const __grid_constant__ SpionColumnSumArguments args) {
    constexpr int kRowsInFlight = Layout::kParts == 1 ? 4 : 2;
    const RowItem item(args.rows);
    float* out = args.partials + static_cast<long long>(blockIdx.x) * kChannels;
    for (int tile = 0; tile < Layout::kTiles; ++tile) {
        Octet sums[Layout::kParts] = {};
        for (int base = Layout::group(); base < item.count;
             base += kRowsInFlight * Layout::kGroups) {
            uint4 x[kRowsInFlight][Layout::kParts];
#pragma unroll
            for (int n = 0; n < kRowsInFlight * Layout::kParts; ++n) {
                const int flight = n / Layout::kParts, part = n % Layout::kParts;
                const int row = base + flight * Layout::kGroups;
                const int octet = Layout::octet(tile, part);
                x[flight][part] = load_packed(args.x, (item.first + row) * Layout::kOctets + octet,
                                              row < item.count && Layout::has(octet));
            }
#pragma unroll
            for (int n = 0; n < kRowsInFlight * Layout::kParts; ++n) {
                const int part = n % Layout::kParts;
                const Octet values = unpack(x[n / Layout::kParts][part]);
#pragma unroll
                for (int e = 0; e < 8; ++e) sums[part].value[e] += values.value[e];
            }
        }
        sum_over_groups<Layout>(sums, tile, 1.0F, out);
    }
}
