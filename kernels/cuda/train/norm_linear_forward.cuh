// y = norm(x) W^T + b, each row read once and the norm's output written nowhere: the backward pass
// makes it again from x, mean and rstd. Beside it, as it waits for memory, it draws what the dropouts
// behind attention keep.
#pragma once

#include "kernels/cuda/train/layer_kept.cuh"
#include "kernels/cuda/train/warp_rows.cuh"

enum : int { kWarps = kThreads / 32 };
enum : int { kWeightBytes = kOut * kChannels * 2 };
enum : int { kKeyBytes = 128 };
enum : int { kVectorBytes = (2 * kChannels + kOut) * 4 + kKeyBytes };
static_assert(2 * kPhiloxRounds * 4 <= kKeyBytes && kPhiloxRounds % 2 == 0);
using Queue = LaneQueue<1>;

// Shared memory: weights, gamma, beta, bias, the draws' keys, the warps' queues.
SPION_DEVICE unsigned weight() {
    return shared_memory_start();
}
SPION_DEVICE unsigned gamma() {
    return weight() + kWeightBytes;
}
SPION_DEVICE unsigned beta() {
    return gamma() + kChannels * 4;
}
SPION_DEVICE unsigned bias() {
    return beta() + kChannels * 4;
}

// The keys lie in shared memory as a loop over rows would keep them in registers.
SPION_DEVICE unsigned keys() {
    return bias() + kOut * 4;
}

// Draws for the rows from `first`.
SPION_DEVICE void draw_kept(const SpionNormLinearArguments& args, unsigned first) {
#pragma unroll 1
    for (int word = 0; word < kKeptWords; ++word) {
        const bool narrow = word < kKeptGelu;
        const unsigned chunks = narrow ? kChannels / 8 : kHidden / 8;
        const unsigned stream = word == kKeptOut      ? args.out_stream
                                : word == kKeptBranch ? args.branch_stream
                                                      : args.gelu_stream;
        const unsigned octet = (narrow ? 0 : 8 * (word - kKeptGelu)) + lane_octet();
        args.kept[kept_index(first) + 32 * word] = draw_word(
            (first + lane_row()) * chunks + octet, 8 * chunks, stream, keys(), args.draws);
    }
}

SPION_DEVICE void load_parameters(const SpionNormLinearArguments& args) {
    const Weights<kOut, kChannelChunks> of_map(args.weight);
    const Vector<kChannels> scale(args.gamma), shift(args.beta);
    const Vector<kOut> of_bias(args.bias);
    of_map.store(weight());
    scale.store(gamma());
    shift.store(beta());
    of_bias.store(bias());
    if (threadIdx.x < 2 * kPhiloxRounds) {
        store_shared_word(keys() + threadIdx.x * 4, spion_key_now(args.draws, (int)threadIdx.x));
    }
}

extern "C" __global__ void __launch_bounds__(kThreads, 2)
    norm_linear_forward(const __grid_constant__ SpionNormLinearArguments args) {
    const int warp = (int)threadIdx.x / 32;
    const unsigned begin = blockIdx.x * (unsigned)args.rows_per_item;
    const unsigned end = item_end(args, begin);
    const Queue queue{gamma() + kVectorBytes + warp * Queue::kWarpBytes};
    unsigned first = begin + kWarpRows * warp;
    queue.fetch(0, 0, args.x, first, end);
    cp_async_commit_group();
    load_parameters(args);
    __syncthreads();
    for (int stage = 0; first < end; ++stage, first += kWarpRows * kWarps) {
        queue.fetch(stage + 1, 0, args.x, first + kWarpRows * kWarps, end);
        cp_async_commit_group();
        if constexpr (kDropout > 0.0F) draw_kept(args, first);
        cp_async_wait_group<1>();
        const WarpRows x = queue.rows(stage, 0);
        const Statistics of = statistics_of(x);
        store_statistics(of, args.mean, args.rstd, first, end);
        const WarpOperands normed = operands_of(normalise(x, of, gamma(), beta()));
#pragma unroll 2  // so many sums that no product waits for the one before
        for (int n = 0; n < kOut / 32; ++n) {
            float acc[4][4];
            start(acc, vector_octet(bias(), 4 * n + lane_octet()));
#pragma unroll
            for (int k = 0; k < kGroups; ++k) {
                multiply_by_rows<kChannelChunks>(acc, normed.group[k], weight(), n, k);
            }
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const unsigned row = first + lane_row() + 8 * half;
                store_global_16((uint4*)args.y + row * (kOut / 8) + 4 * n + lane_octet(),
                                pack(octet_of(acc, half)), row < end);
            }
        }
    }
}
