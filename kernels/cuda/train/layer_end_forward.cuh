// What follows attention in a layer, in one pass over its rows: the output projection, the norm and
// the feed-forward part with both residual additions. Nothing between is written but x_middle and its
// statistics, from which the backward pass makes it again. All weights lie in shared memory.
#pragma once

#include "kernels/cuda/train/dropout.cuh"
#include "kernels/cuda/train/gelu_terms.cuh"
#include "kernels/cuda/train/warp_rows.cuh"

enum : int { kWarps = kThreads / 32, kHiddenChunks = kHidden / 8 };
enum : int { kOutWeightBytes = kChannels * kChannels * 2, kWeightBytes = kHidden * kChannels * 2 };
enum : int { kVectorBytes = (4 * kChannels + kHidden) * 4 };
enum : int { kO, kX };  // tensors of the queue
using Queue = LaneQueue<2>;
static_assert(kHidden % 32 == 0);

// Shared memory: the weights, the vectors, the warps' queues.
SPION_DEVICE unsigned out_weight() {
    return shared_memory_start();
}
SPION_DEVICE unsigned weight1() {
    return out_weight() + kOutWeightBytes;
}
SPION_DEVICE unsigned weight2() {
    return weight1() + kWeightBytes;
}
SPION_DEVICE unsigned gamma() {
    return weight2() + kWeightBytes;
}
SPION_DEVICE unsigned beta() {
    return gamma() + kChannels * 4;
}
SPION_DEVICE unsigned out_bias() {
    return beta() + kChannels * 4;
}
SPION_DEVICE unsigned bias2() {
    return out_bias() + kChannels * 4;
}
SPION_DEVICE unsigned bias1() {
    return bias2() + kChannels * 4;
}

// x + dropout(acc + bias) of the lane's octets, to `out` and back, as stored.
SPION_DEVICE WarpRows add_branch(const WarpSums& branch, unsigned bias, const WarpRows& x,
                                 const SpionDropout& dropout, void* out, long long first,
                                 long long end) {
    WarpRows result;
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
        const int chunk = 4 * group + lane_octet();
        const Octet shift = vector_octet(bias, chunk);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const long long row = first + lane_row() + 8 * half;
            const long long index = row * kChannelChunks + chunk;
            Octet sum = octet_of(branch.acc[group], half);
            add(sum, shift);
            drop(sum, index, dropout);
            add(sum, unpack(x.octet[half][group]));
            result.octet[half][group] = pack(sum);
            if (row < end) ((uint4*)out)[index] = result.octet[half][group];
        }
    }
    return result;
}

// dropout(gelu(hidden)) of an octet; hidden is rounded first, as what is stored would be.
SPION_DEVICE uint4 gate(const Octet& hidden, long long index, const SpionDropout& dropout) {
    Octet x = unpack(pack(hidden));
    const Octet factors = dropout_factors(index, dropout);
#pragma unroll
    for (int e = 0; e < 8; ++e) {
        x.value[e] = x.value[e] * normal_terms(x.value[e]).distribution * factors.value[e];
    }
    return pack(x);
}

SPION_DEVICE void feed_forward(WarpSums& y, const WarpRows& normed,
                               const SpionLayerEndArguments& args, long long first) {
#pragma unroll 1
    for (int n = 0; n < kHidden / 32; ++n) {
        float acc[4][4] = {};
#pragma unroll
        for (int k = 0; k < kGroups; ++k) {
            multiply_by_rows<kChannelChunks>(acc, normed.octet[0][k], normed.octet[1][k], weight1(),
                                             n, k);
        }
        const int chunk = 4 * n + lane_octet();
        const Octet bias = vector_octet(bias1(), chunk);
        uint4 gated[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const long long row = first + lane_row() + 8 * half;
            Octet hidden = octet_of(acc, half);
            add(hidden, bias);
            gated[half] = gate(hidden, row * kHiddenChunks + chunk,
                               with_stream(args.dropout, args.gelu_stream));
        }
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
            multiply_by_rows<kHiddenChunks>(y.acc[group], gated[0], gated[1], weight2(), group, n);
        }
    }
}

extern "C" __global__ void __launch_bounds__(kThreads, 2)
    layer_end_forward(const __grid_constant__ SpionLayerEndArguments args) {
    const int warp = (int)threadIdx.x / 32;
    const long long begin = blockIdx.x * args.rows_per_item;
    const long long end =
        begin + args.rows_per_item < args.rows ? begin + args.rows_per_item : args.rows;
    const Queue queue{gamma() + kVectorBytes + warp * Queue::kWarpBytes};
    long long first = begin + kWarpRows * warp;
    queue.fetch(0, kO, args.o, first, end);
    queue.fetch(0, kX, args.x, first, end);
    cp_async_commit_group();
    load_weights<kChannels, kChannelChunks>(out_weight(), args.out_weight);
    load_weights<kHidden, kChannelChunks>(weight1(), args.weight1);
    load_weights<kChannels, kHiddenChunks>(weight2(), args.weight2);
    load_vector<kChannels>(gamma(), args.gamma);
    load_vector<kChannels>(beta(), args.beta);
    load_vector<kChannels>(out_bias(), args.out_bias);
    load_vector<kChannels>(bias2(), args.bias2);
    load_vector<kHidden>(bias1(), args.bias1);
    __syncthreads();
    for (int stage = 0; first < end; ++stage, first += kWarpRows * kWarps) {
        queue.fetch(stage + 1, kO, args.o, first + kWarpRows * kWarps, end);
        queue.fetch(stage + 1, kX, args.x, first + kWarpRows * kWarps, end);
        cp_async_commit_group();
        cp_async_wait_group<1>();
        WarpSums branch = {};
        {
            const WarpRows o = queue.rows(stage, kO);
#pragma unroll
            for (int n = 0; n < kGroups; ++n) {
#pragma unroll
                for (int k = 0; k < kGroups; ++k) {
                    multiply_by_rows<kChannelChunks>(branch.acc[n], o.octet[0][k], o.octet[1][k],
                                                     out_weight(), n, k);
                }
            }
        }
        const WarpRows x =
            add_branch(branch, out_bias(), queue.rows(stage, kX),
                       with_stream(args.dropout, args.out_stream), args.x_middle, first, end);
        queue.keep(stage, kX, x);  // not in registers during the feed-forward part
        const Statistics of = statistics_of(x);
        store_statistics(of, args.mean, args.rstd, first, end);
        branch = {};
        feed_forward(branch, normalise(x, of, gamma(), beta()), args, first);
        add_branch(branch, bias2(), queue.rows(stage, kX),
                   with_stream(args.dropout, args.branch_stream), args.x_out, first, end);
    }
}
