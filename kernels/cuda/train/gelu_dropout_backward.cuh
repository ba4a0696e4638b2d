// d_x = dropout(d_y) * gelu'(x), and the sum of d_x over the item's rows: the bias gradient's
// share.
#pragma once

#include "kernels/cuda/train/contract.cuh"
#include "kernels/cuda/train/dropout.cuh"
#include "kernels/cuda/train/gelu_terms.cuh"
#include "kernels/cuda/train/rows.cuh"

using Layout = RowLayout<kChannels>;

// x -> d_x of one octet.
__device__ __forceinline__ void gelu_gradient(Octet& x, const Octet& d_y) {
    constexpr float kInverseRootTwoPi = 0.39894228040143268F;
#pragma unroll
    for (int e = 0; e < 8; ++e) {
        const NormalTerms terms = normal_terms(x.value[e]);
        const float slope = terms.distribution + x.value[e] * (kInverseRootTwoPi * terms.bell);
        x.value[e] = slope * d_y.value[e];
    }
}

extern "C" __global__ void __launch_bounds__(kThreads)
    gelu_dropout_backward(const __grid_constant__ SpionGeluArguments args) {
    constexpr int kRowsInFlight = Layout::kParts == 1 ? 2 : 1;
    const SpionDropout dropout = spion_dropout_now(args.dropout);
    const RowItem item(args.rows);
    float* out = args.d_bias_partials + static_cast<long long>(blockIdx.x) * kChannels;
    for (int tile = 0; tile < Layout::kTiles; ++tile) {
        Octet sums[Layout::kParts] = {};
        for (int base = Layout::group(); base < item.count;
             base += kRowsInFlight * Layout::kGroups) {
            uint4 x[kRowsInFlight][Layout::kParts], d_y[kRowsInFlight][Layout::kParts];
#pragma unroll
            for (int n = 0; n < kRowsInFlight * Layout::kParts; ++n) {
                const int flight = n / Layout::kParts, part = n % Layout::kParts;
                const int row = base + flight * Layout::kGroups;
                const int octet = Layout::octet(tile, part);
                const bool valid = row < item.count && Layout::has(octet);
                const long long index = (item.first + row) * Layout::kOctets + octet;
                x[flight][part] = load_packed(args.x, index, valid);
                d_y[flight][part] = load_packed(args.d_y, index, valid);
            }
#pragma unroll
            for (int n = 0; n < kRowsInFlight * Layout::kParts; ++n) {
                const int flight = n / Layout::kParts, part = n % Layout::kParts;
                const int row = base + flight * Layout::kGroups;
                const int octet = Layout::octet(tile, part);
                const bool valid = row < item.count && Layout::has(octet);
                const long long index = (item.first + row) * Layout::kOctets + octet;
                Octet gradient = unpack(x[flight][part]);
                Octet upstream = unpack(d_y[flight][part]);
                drop(upstream, index, dropout);
                gelu_gradient(gradient, upstream);
                store_packed(args.d_x, index, pack(gradient), valid);
#pragma unroll
                for (int e = 0; e < 8; ++e) sums[part].value[e] += gradient.value[e];
            }
        }
        sum_over_groups<Layout>(sums, tile, 1.0F, out);
    }
}
