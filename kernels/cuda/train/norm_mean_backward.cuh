// The gradient through the mean over a sample's rows and the norm before it. All rows of a sample have the
// same gradient s = d_y * gamma / L of u, their rows of unit mean and variance:
//     d_x = rstd * (s - mean(s) - u * mean(s * u))
// or zero past the sample's length. Statistics are computed again from x.
#pragma once

#include "kernels/cuda/train/warp_rows.cuh"

enum : int { kWarps = kThreads / 32 };
using Queue = LaneQueue<1>;

// Shared memory: gamma over the mean's divisor, the warps' queues.
SPION_DEVICE unsigned scaled_gamma() {
    return shared_memory_start();
}

// A row's sample, and whether it is among those that the mean is of.
struct Place {
    unsigned sample, position;
    bool counts;
    __device__ __forceinline__ Place(const SpionNormMeanArguments& args, unsigned row, unsigned end)
        : sample(row / (unsigned)args.length), position(row - sample * (unsigned)args.length) {
        counts = row < end && (int)position < (args.first_only != 0 ? 1 : args.lengths[sample]);
    }
};

// d_y of the lane's octets of a sample.
SPION_DEVICE void load_gradient(Octet (&d_y)[kGroups], const SpionNormMeanArguments& args,
                                const Place& place) {
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
        const unsigned at = place.sample * kChannels + 32 * group + 8 * lane_octet();
#pragma unroll
        for (int e = 0; e < 8; e += 2) {
            const float2 pair =
                place.counts ? *(const float2*)(args.d_y + at + e) : make_float2(0.0F, 0.0F);
            d_y[group].value[e] = pair.x;
            d_y[group].value[e + 1] = pair.y;
        }
    }
}

// The partial row of the sample that begins with this row.
SPION_DEVICE void store_partials(const Octet (&d_y)[kGroups], const SpionNormMeanArguments& args,
                                 unsigned sample, float scale) {
    const int rows = args.first_only != 0 ? 1 : args.lengths[sample];
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
        const int column = 32 * group + 8 * lane_octet();
        float* out = args.partials + sample * 2 * kChannels + column;
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            out[e] = d_y[group].value[e] * args.units[sample * kChannels + column + e];
            out[kChannels + e] = d_y[group].value[e] * ((float)rows * scale);
        }
    }
}

// d_x of row `row`, the lane's half `half` of x.
SPION_DEVICE void row_gradient(const SpionNormMeanArguments& args, const WarpRows& x,
                               const Statistics& of, int half, unsigned row, unsigned end,
                               float scale) {
    const Place place(args, row, end);
    const float mean = of.mean[half], rstd = of.rstd[half];
    Octet s[kGroups];
    load_gradient(s, args, place);
    if (row < end && place.position == 0) store_partials(s, args, place.sample, scale);
    float sum = 0.0F, product = 0.0F;
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
        const Octet factor = vector_octet(scaled_gamma(), 4 * group + lane_octet());
        const Octet unit = unit_of(x.octet[half][group], mean, rstd);
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            float& value = s[group].value[e];
            value *= factor.value[e];
            sum += value;
            product += value * unit.value[e];
        }
    }
    sum = sum_over_quad(sum) * (1.0F / kChannels);
    product = sum_over_quad(product) * (1.0F / kChannels);
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
        const Octet unit = unit_of(x.octet[half][group], mean, rstd);
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            float& value = s[group].value[e];
            value = rstd * (value - sum - unit.value[e] * product);
        }
        if (row < end) {
            ((uint4*)args.d_x)[row * kChannelChunks + 4 * group + lane_octet()] =
                place.counts ? pack(s[group]) : make_uint4(0, 0, 0, 0);
        }
    }
}

extern "C" __global__ void __launch_bounds__(kThreads)
    norm_mean_backward(const __grid_constant__ SpionNormMeanArguments args) {
    const int warp = (int)threadIdx.x / 32;
    const unsigned begin = blockIdx.x * (unsigned)args.rows_per_item;
    const unsigned all = (unsigned)args.batch * (unsigned)args.length;
    const unsigned end = min(begin + (unsigned)args.rows_per_item, all);
    const float scale = args.first_only != 0 ? 1.0F : 1.0F / (float)args.length;
    const Queue queue{scaled_gamma() + kChannels * 4 + warp * Queue::kWarpBytes};
    unsigned first = begin + kWarpRows * warp;
    queue.fetch(0, 0, args.x, first, end);
    cp_async_commit_group();
    for (int c = (int)threadIdx.x; c < kChannels; c += kThreads) {
        store_shared_float(scaled_gamma() + c * 4, args.gamma[c] * scale);
    }
    __syncthreads();
    for (int stage = 0; first < end; ++stage, first += kWarpRows * kWarps) {
        queue.fetch(stage + 1, 0, args.x, first + kWarpRows * kWarps, end);
        cp_async_commit_group();
        cp_async_wait_group<1>();
        const WarpRows x = queue.rows(stage, 0);
        const Statistics of = statistics_of(x);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            row_gradient(args, x, of, half, first + lane_row() + 8 * half, end, scale);
        }
    }
}
