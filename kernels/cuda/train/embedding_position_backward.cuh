// d_position[l, :] = sum over the samples b of dropout(d_x[b, l, :]); one thread block a position.
#pragma once

#include "kernels/cuda/train/contract.cuh"
#include "kernels/cuda/train/dropout.cuh"
#include "kernels/cuda/train/rows.cuh"

using Layout = RowLayout<kChannels>;
static_assert(Layout::kTiles == 1, "a row must fit into the registers of a warp");

extern "C" __global__ void __launch_bounds__(kThreads)
    embedding_position_backward(const __grid_constant__ SpionEmbeddingArguments args) {
    constexpr int kRowsInFlight = Layout::kParts == 1 ? 4 : 2;
    const SpionDropout dropout = spion_dropout_now(args.dropout);
    const int batch = static_cast<int>(args.rows / args.length);
    Octet sums[Layout::kParts] = {};
    for (int base = Layout::group(); base < batch; base += kRowsInFlight * Layout::kGroups) {
        uint4 d_x[kRowsInFlight][Layout::kParts];
#pragma unroll
        for (int n = 0; n < kRowsInFlight * Layout::kParts; ++n) {
            const int flight = n / Layout::kParts, part = n % Layout::kParts;
            const int sample = base + flight * Layout::kGroups;
            const long long row = static_cast<long long>(sample) * args.length + blockIdx.x;
            const int octet = Layout::octet(0, part);
            d_x[flight][part] = load_packed(args.d_x, row * Layout::kOctets + octet,
                                            sample < batch && Layout::has(octet));
        }
#pragma unroll
        for (int n = 0; n < kRowsInFlight * Layout::kParts; ++n) {
            const int flight = n / Layout::kParts, part = n % Layout::kParts;
            const int sample = base + flight * Layout::kGroups;
            const long long row = static_cast<long long>(sample) * args.length + blockIdx.x;
            Octet values = unpack(d_x[flight][part]);
            drop(values, row * Layout::kOctets + Layout::octet(0, part), dropout);
#pragma unroll
            for (int e = 0; e < 8; ++e) sums[part].value[e] += values.value[e];
        }
    }
    sum_over_groups<Layout>(sums, 0, 1.0F,
                            args.d_position + static_cast<long long>(blockIdx.x) * kChannels);
}
