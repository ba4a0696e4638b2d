// The gradient through a layer norm and the residual sum before it. With u = (x_out - mean) * rstd
// and g = d_y * gamma: d_x = d_residual + rstd * (g - mean(g) - u * mean(g * u)), d_branch =
// dropout(d_x). Each thread keeps the column sums of its octets in registers; the block adds them
// up at the end.
#pragma once

#include "kernels/cuda/train/contract.cuh"
#include "kernels/cuda/train/dropout.cuh"
#include "kernels/cuda/train/rows.cuh"

using Layout = RowLayout<kChannels>;
static_assert(Layout::kTiles == 1, "a row must fit into the registers of a warp");

struct Sums {
    Octet gamma[Layout::kParts], beta[Layout::kParts], branch[Layout::kParts];
};

// x: the row that the norm saw -> d_x without the residual; d_y is read, sums are added to.
__device__ __forceinline__ void norm_gradient(Octet (&x)[Layout::kParts],
                                              const Octet (&d_y)[Layout::kParts],
                                              const Octet (&gamma)[Layout::kParts], float mean,
                                              float rstd, Sums& sums) {
    float sum = 0.0F, product = 0.0F;
#pragma unroll
    for (int part = 0; part < Layout::kParts; ++part) {
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            const float unit = (x[part].value[e] - mean) * rstd;
            const float scaled = d_y[part].value[e] * gamma[part].value[e];
            sum += scaled;
            product += scaled * unit;
            sums.gamma[part].value[e] += d_y[part].value[e] * unit;
            sums.beta[part].value[e] += d_y[part].value[e];
            x[part].value[e] = unit;
        }
    }
    sum = sum_over_row<Layout>(sum) * (1.0F / kChannels);
    product = sum_over_row<Layout>(product) * (1.0F / kChannels);
#pragma unroll
    for (int part = 0; part < Layout::kParts; ++part) {
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            const float scaled = d_y[part].value[e] * gamma[part].value[e];
            x[part].value[e] = rstd * (scaled - sum - x[part].value[e] * product);
        }
    }
}

extern "C" __global__ void __launch_bounds__(kThreads)
    residual_norm_backward(const __grid_constant__ SpionNormArguments args) {
    const SpionDropout dropout = spion_dropout_now(args.dropout);
    const RowItem item(args.rows);
    Sums sums = {};
    Octet gamma[Layout::kParts];
#pragma unroll
    for (int part = 0; part < Layout::kParts; ++part) {
        const int octet = Layout::octet(0, part);
        gamma[part] = load_octet(args.gamma, octet, Layout::has(octet));
    }
    for (int base = 0; base < item.count; base += Layout::kGroups) {
        const int row = base + Layout::group();
        const bool has_row = row < item.count;
        // A row that the item lacks has zeros everywhere and adds nothing to the sums.
        const float mean = has_row ? args.mean[item.first + row] : 0.0F;
        const float rstd = has_row ? args.rstd[item.first + row] : 0.0F;
        Octet x[Layout::kParts], d_y[Layout::kParts];
        uint4 residual[Layout::kParts];
#pragma unroll
        for (int part = 0; part < Layout::kParts; ++part) {
            const int octet = Layout::octet(0, part);
            const bool valid = has_row && Layout::has(octet);
            const long long index = (item.first + row) * Layout::kOctets + octet;
            x[part] = unpack(load_packed(args.x_out, index, valid));
            d_y[part] = unpack(load_packed(args.d_y, index, valid));
            residual[part] =
                load_packed(args.d_residual, index, valid && args.d_residual != nullptr);
        }
        norm_gradient(x, d_y, gamma, mean, rstd, sums);
#pragma unroll
        for (int part = 0; part < Layout::kParts; ++part) {
            const int octet = Layout::octet(0, part);
            const bool valid = has_row && Layout::has(octet);
            const long long index = (item.first + row) * Layout::kOctets + octet;
            const Octet d_residual = unpack(residual[part]);
#pragma unroll
            for (int e = 0; e < 8; ++e) x[part].value[e] += d_residual.value[e];
            store_packed(args.d_x, index, pack(x[part]), valid);
            if (args.d_branch != nullptr) {
                drop(x[part], index, dropout);
                store_packed(args.d_branch, index, pack(x[part]), valid);
#pragma unroll
                for (int e = 0; e < 8; ++e) {
                    sums.branch[part].value[e] += valid ? x[part].value[e] : 0.0F;
                }
            }
        }
    }
    float* out = args.partials + static_cast<long long>(blockIdx.x) * 3 * kChannels;
    sum_over_groups<Layout>(sums.gamma, 0, 1.0F, out);
    sum_over_groups<Layout>(sums.beta, 0, 1.0F, out + kChannels);
    sum_over_groups<Layout>(sums.branch, 0, 1.0F, out + 2 * kChannels);
}
