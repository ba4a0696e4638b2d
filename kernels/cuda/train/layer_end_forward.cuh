// What follows attention in a layer, in one pass over its rows: the output projection, the norm and
// the feed-forward part with both residual additions. Nothing between is written but x_middle and its
// statistics, from which the backward pass makes it again. All weights lie in shared memory.
#pragma once

#include "kernels/cuda/train/layer_end.cuh"

enum : int { kWarps = kThreads / 32 };
enum : int { kOutWeightBytes = kChannels * kChannels * 2 };
enum : int { kVectorBytes = (4 * kChannels + kHidden) * 4 };
enum : int { kO, kX };  // tensors of the queue
using Queue = LaneQueue<2>;

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

// The lane's words of what dropout keeps for the rows from `first`.
struct KeptWords {
    unsigned word[kKeptWords];
};
SPION_DEVICE KeptWords load_kept(const SpionLayerEndArguments& args, unsigned first, unsigned end) {
    KeptWords kept = {};
#pragma unroll
    for (int word = 0; word < (kDropout > 0.0F ? kKeptWords : 0); ++word) {
        if (first < end) kept.word[word] = args.kept[kept_index(first) + 32 * word];
    }
    return kept;
}

// x + dropout(branch) of the lane's octets, to `out` and back, as stored.
SPION_DEVICE WarpRows add_branch(const WarpSums& branch, const WarpRows& x, unsigned kept,
                                 float factor, void* out, unsigned first, unsigned end) {
    WarpRows result;
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
        const unsigned row = first + lane_row();
        const unsigned index = row * kChannelChunks + 4 * group + lane_octet();
        const Kept mask(kept, group);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            Octet sum = octet_of(branch.acc[group], half);
            const Octet before = unpack(x.octet[half][group]);
#pragma unroll
            for (int e = 0; e < 8; ++e) {
                sum.value[e] = sum.value[e] * factor + before.value[e];
            }
            result.octet[half][group] = mask.apply(half, pack(sum), x.octet[half][group]);
            store_global_16((uint4*)out + index + 8 * half * kChannelChunks,
                            result.octet[half][group], row + 8 * half < end);
        }
    }
    return result;
}

// y = gated W2^T + b2.
SPION_DEVICE void feed_forward(WarpSums& y, const WarpOperands& normed, KeptWords kept,
                               float factor) {
#pragma unroll 1
    for (int n = 0; n < kHidden / 32; ++n) {
        float acc[4][4];
        start(acc, vector_octet(bias1(), 4 * n + lane_octet()));
#pragma unroll
        for (int k = 0; k < kGroups; ++k) {
            multiply_by_rows<kChannelChunks>(acc, normed.group[k], weight1(), n, k);
        }
        Octet octets[2] = {octet_of(acc, 0), octet_of(acc, 1)};
#pragma unroll
        for (Octet& octet : octets) {
#pragma unroll
            for (float& value : octet.value) value = gelu(value);
        }
        // The scale of what dropout keeps is left to the sums.
        const Kept mask(kept.word[kKeptGelu], n);
        if (n % 2 == 1) {  // the word of the next two groups, without an address
#pragma unroll
            for (int word = kKeptGelu; word + 1 < kKeptWords; ++word) {
                kept.word[word] = kept.word[word + 1];
            }
        }
        const Operand operand =
            operand_of(mask.apply(0, pack(octets[0])), mask.apply(1, pack(octets[1])));
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
            multiply_by_rows<kHiddenChunks>(y.acc[group], operand, weight2(), group, n);
        }
    }
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
        const Octet bias = vector_octet(bias2(), 4 * group + lane_octet());
#pragma unroll
        for (int i = 0; i < 16; ++i) {
            float& value = y.acc[group][i / 4][i % 4];
            value = value * factor + bias.value[i / 4 * 2 + i % 2];
        }
    }
}

SPION_DEVICE void load_parameters(const SpionLayerEndArguments& args) {
    const Weights<kChannels, kChannelChunks> out(args.out_weight);
    const Weights<kHidden, kChannelChunks> first(args.weight1);
    const Weights<kChannels, kHiddenChunks> second(args.weight2);
    const Vector<kChannels> scale(args.gamma), shift(args.beta);
    const Vector<kChannels> of_out(args.out_bias), of_second(args.bias2);
    const Vector<kHidden> of_first(args.bias1);
    out.store(out_weight());
    first.store(weight1());
    second.store(weight2());
    scale.store(gamma());
    shift.store(beta());
    of_out.store(out_bias());
    of_second.store(bias2());
    of_first.store(bias1());
}

extern "C" __global__ void __launch_bounds__(kThreads, 2)
    layer_end_forward(const __grid_constant__ SpionLayerEndArguments args) {
    const int warp = (int)threadIdx.x / 32;
    const unsigned begin = blockIdx.x * (unsigned)args.rows_per_item;
    const unsigned end = item_end(args, begin);
    const Queue queue{gamma() + kVectorBytes + warp * Queue::kWarpBytes};
    unsigned first = begin + kWarpRows * warp;
    queue.fetch(0, kO, args.o, first, end);
    queue.fetch(0, kX, args.x, first, end);
    cp_async_commit_group();
    KeptWords next = load_kept(args, first, end);
    load_parameters(args);
    __syncthreads();
    for (int stage = 0; first < end; ++stage, first += kWarpRows * kWarps) {
        queue.fetch(stage + 1, kO, args.o, first + kWarpRows * kWarps, end);
        queue.fetch(stage + 1, kX, args.x, first + kWarpRows * kWarps, end);
        cp_async_commit_group();
        const KeptWords kept = next;
        next = load_kept(args, first + kWarpRows * kWarps, end);
        cp_async_wait_group<1>();
        WarpSums branch;
        {
            const WarpOperands o = operands_of(queue.rows(stage, kO));
#pragma unroll
            for (int n = 0; n < kGroups; ++n) {
                start(branch.acc[n], vector_octet(out_bias(), 4 * n + lane_octet()));
#pragma unroll
                for (int k = 0; k < kGroups; ++k) {
                    multiply_by_rows<kChannelChunks>(branch.acc[n], o.group[k], out_weight(), n, k);
                }
            }
        }
        const WarpRows x = add_branch(branch, queue.rows(stage, kX), kept.word[kKeptOut],
                                      args.scale, args.x_middle, first, end);
        queue.keep(stage, kX, x);  // not in registers during the feed-forward part
        const Statistics of = statistics_of(x);
        store_statistics(of, args.mean, args.rstd, first, end);
        branch = {};
        feed_forward(branch, operands_of(normalise(x, of, gamma(), beta())), kept, args.scale);
        add_branch(branch, queue.rows(stage, kX), kept.word[kKeptBranch], args.scale, args.x_out,
                   first, end);
    }
}
