// x_out = x + dropout(branch); y = layer norm of x_out. One group of lanes a row, so that mean and
// variance are sums of a few shuffles over values held in registers.
#pragma once

#include "kernels/cuda/train/contract.cuh"
#include "kernels/cuda/train/dropout.cuh"
#include "kernels/cuda/train/rows.cuh"

using Layout = RowLayout<kChannels>;
static_assert(Layout::kTiles == 1, "a row must fit into the registers of a warp");

// One row's octets -> its statistics and normalised octets. args by reference: kernel parameters.
__device__ __forceinline__ void normalise(Octet (&x)[Layout::kParts],
                                          const Octet (&gamma)[Layout::kParts],
                                          const Octet (&beta)[Layout::kParts], float& mean,
                                          float& rstd) {
    float sum = 0.0F;
#pragma unroll
    for (int part = 0; part < Layout::kParts; ++part) {
#pragma unroll
        for (const float value : x[part].value) sum += value;
    }
    mean = sum_over_row<Layout>(sum) * (1.0F / kChannels);
    float squares = 0.0F;
#pragma unroll
    for (int part = 0; part < Layout::kParts; ++part) {
        if (!Layout::has(Layout::octet(0, part))) continue;
#pragma unroll
        for (const float value : x[part].value) squares += (value - mean) * (value - mean);
    }
    rstd = rsqrtf(sum_over_row<Layout>(squares) * (1.0F / kChannels) + kEpsilon);
#pragma unroll
    for (int part = 0; part < Layout::kParts; ++part) {
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            const float unit = (x[part].value[e] - mean) * rstd;
            x[part].value[e] = unit * gamma[part].value[e] + beta[part].value[e];
        }
    }
}

extern "C" __global__ void __launch_bounds__(kThreads)
    residual_norm_forward(const __grid_constant__ SpionNormArguments args) {
    constexpr int kRowsInFlight = Layout::kParts == 1 ? 2 : 1;
    const SpionDropout dropout = spion_dropout_now(args.dropout);
    const RowItem item(args.rows);
    Octet gamma[Layout::kParts], beta[Layout::kParts];
#pragma unroll
    for (int part = 0; part < Layout::kParts; ++part) {
        const int octet = Layout::octet(0, part);
        gamma[part] = load_octet(args.gamma, octet, Layout::has(octet));
        beta[part] = load_octet(args.beta, octet, Layout::has(octet));
    }
    for (int base = 0; base < item.count; base += kRowsInFlight * Layout::kGroups) {
        uint4 x_packed[kRowsInFlight][Layout::kParts], branch_packed[kRowsInFlight][Layout::kParts];
#pragma unroll
        for (int flight = 0; flight < kRowsInFlight; ++flight) {
            const int row = base + flight * Layout::kGroups + Layout::group();
#pragma unroll
            for (int part = 0; part < Layout::kParts; ++part) {
                const int octet = Layout::octet(0, part);
                const bool valid = row < item.count && Layout::has(octet);
                const long long index = (item.first + row) * Layout::kOctets + octet;
                x_packed[flight][part] = load_packed(args.x, index, valid);
                branch_packed[flight][part] =
                    load_packed(args.branch, index, valid && args.branch != nullptr);
            }
        }
#pragma unroll
        for (int flight = 0; flight < kRowsInFlight; ++flight) {
            const int row = base + flight * Layout::kGroups + Layout::group();
            Octet x[Layout::kParts];
#pragma unroll
            for (int part = 0; part < Layout::kParts; ++part) {
                const int octet = Layout::octet(0, part);
                const bool valid = row < item.count && Layout::has(octet);
                const long long index = (item.first + row) * Layout::kOctets + octet;
                x[part] = unpack(x_packed[flight][part]);
                if (args.branch != nullptr) {
                    Octet branch = unpack(branch_packed[flight][part]);
                    drop(branch, index, dropout);
#pragma unroll
                    for (int e = 0; e < 8; ++e) x[part].value[e] += branch.value[e];
                    // The backward pass sees the sum as stored, so the statistics do too.
                    const uint4 stored = pack(x[part]);
                    store_packed(args.x_out, index, stored, valid);
                    x[part] = unpack(stored);
                }
            }
            float mean, rstd;
            normalise(x, gamma, beta, mean, rstd);
#pragma unroll
            for (int part = 0; part < Layout::kParts; ++part) {
                const int octet = Layout::octet(0, part);
                const long long index = (item.first + row) * Layout::kOctets + octet;
                store_packed(args.y, index, pack(x[part]), row < item.count && Layout::has(octet));
            }
            if (row < item.count && Layout::octet(0, 0) == 0) {
                args.mean[item.first + row] = mean;
                args.rstd[item.first + row] = rstd;
            }
        }
    }
}
