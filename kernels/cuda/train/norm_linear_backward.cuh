// The backward pass of y = norm(x) W^T + b and of the norm, in one pass over the gradient of y: the
// gradients of weights and bias, those of gamma and beta, and that of x, added to d_x in place.
#pragma once

#include "kernels/cuda/train/row_gradients.cuh"

enum : int { kOutChunks = kOut / 8, kOutTiles = kOut / 64 };  // tiles of 16 outputs, a weight warp
enum : int { kStages = 2 };                                   // of a half's tiles
enum : int { kWeightBytes = kOut * kChannels * 2 };
enum : int {
    kGradientTileBytes = kTileRows * kOut * 2,
    kUnitTileBytes = kTileRows * kChannels * 2
};
enum : int { kPlaceBytes = kGradientTileBytes + kUnitTileBytes };
enum : int { kX, kGradient };  // tensors of the queue
using Queue = LaneQueue<2>;
using Words = WordQueue<kStatisticWords>;
static_assert(kOut % 64 == 0 && kChannels % 64 == 0 && kOutTiles <= 8);

// Shared memory: weights, gamma, beta, the halves' places, the row warps' queues.
SPION_DEVICE unsigned weight() {
    return shared_memory_start();
}
SPION_DEVICE unsigned gamma() {
    return weight() + kWeightBytes;
}
SPION_DEVICE unsigned beta() {
    return gamma() + kChannels * 4;
}
// d_y [64, kOut], then x with unit mean and variance [64, kChannels].
SPION_DEVICE unsigned place_of(int half, int tile) {
    return beta() + kChannels * 4 + (kStages * half + tile % kStages) * kPlaceBytes;
}
SPION_DEVICE int place_index(int half, int tile) {
    return kStages * half + tile % kStages;
}

// The lane's octets of d_y, rows [first, first + 16) below `end`, to the warp's rows of a tile.
SPION_DEVICE void fetch_gradient(unsigned tile, int warp_row, const void* d_y, unsigned first,
                                 unsigned end) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const unsigned row = first + lane_row() + 8 * half;
#pragma unroll
        for (int group = 0; group < kOut / 32; ++group) {
            cp_async_16(octet_address<kOutChunks>(tile, warp_row + lane_row(), group) +
                            8 * half * kOutChunks * 16,
                        (const uint4*)d_y + row * kOutChunks + 4 * group + lane_octet(), row < end);
        }
    }
}

// What a warp does for its 16 rows of every other tile.
SPION_DEVICE void walk_rows(const SpionNormLinearArguments& args, int warp, unsigned begin,
                            unsigned end, int tiles) {
    const int half = warp / kTileWarps, warp_row = warp % kTileWarps * kWarpRows;
    const Queue queue{place_of(2, 0) + warp * Queue::kWarpBytes};
    const Words words{place_of(2, 0) + kRowWarps * Queue::kWarpBytes + warp * Words::kWarpBytes};
    const auto fetch = [&](int i) {
        const unsigned first = begin + (2 * i + half) * kTileRows + warp_row;
        fetch_gradient(place_of(half, i), warp_row, args.d_y, first, end);
        queue.fetch(i, kX, args.x, first, end);
        queue.fetch(i, kGradient, args.d_x, first, end);
        fetch_statistics(words, i, args.mean, args.rstd, first, end);
    };
    const int mine = (tiles - half + 1) / 2;
    if (mine > 0) fetch(0);
    cp_async_commit_group();
    for (int i = 0; i < mine; ++i) {
        const unsigned first = begin + (2 * i + half) * kTileRows + warp_row;
        if (i + 1 < mine) {
            if (i > 0) bar_sync(empty(place_index(half, i + 1)), kMeeting);
            fetch(i + 1);
        }
        cp_async_commit_group();
        cp_async_wait_group<1>();
        __syncwarp();  // all of the warp's rows of d_y are here
        const unsigned tile = place_of(half, i);
        const Statistics of = statistics(words, i);
        store_narrow(tile + kGradientTileBytes, warp_row, units_of(queue.rows(i, kX), of));
        bar_arrive(full(place_index(half, i)), kMeeting);
        WarpSums d = {};
#pragma unroll 2
        for (int k = 0; k < kOut / 32; ++k) {
            const Operand d_y = row_operand<kOutChunks>(tile, warp_row, k, (int)threadIdx.x % 32);
#pragma unroll
            for (int n = 0; n < kGroups; ++n) {
                multiply_by_columns<kChannelChunks>(d.acc[n], d_y, weight(), n, k);
            }
        }
        norm_gradient(d, queue.rows(i, kX), of, gamma());
        const WarpRows residual = queue.rows(i, kGradient);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const unsigned row = first + lane_row() + 8 * h;
#pragma unroll
            for (int group = 0; group < kGroups; ++group) {
                Octet sum = octet_of(d.acc[group], h);
                add(sum, unpack(residual.octet[h][group]));
                store_global_16((uint4*)args.d_x + row * kChannelChunks + 4 * group + lane_octet(),
                                pack(sum), row < end);
            }
        }
    }
}

// Weight warp `warp` has outputs [16 kOutTiles warp, + 16 kOutTiles).
SPION_DEVICE void sum_weights(NormMapSums<kOutTiles>& sums, int warp, int tiles) {
    const int lane = (int)threadIdx.x % 32;
    for (int j = 0; j < tiles; ++j) {
        const int half = j % 2, i = j / 2;
        const unsigned tile = place_of(half, i);
        bar_sync(full(place_index(half, i)), kMeeting);
#pragma unroll 1
        for (int k = 0; k < kTileRows / 16; ++k) {
            sums.add<kOutChunks>(tile, tile + kGradientTileBytes, k, warp, lane);
        }
        if (j + 2 * kStages < tiles) bar_arrive(empty(place_index(half, i)), kMeeting);
    }
}

extern "C" __global__ void __launch_bounds__(kThreads, 1)
    norm_linear_backward(const __grid_constant__ SpionNormLinearArguments args) {
    const int warp = (int)threadIdx.x / 32;
    const unsigned begin = blockIdx.x * (unsigned)args.rows_per_item;
    const unsigned end = item_end(args, begin);
    const int tiles = (int)((end - begin + kTileRows - 1) / kTileRows);
    float* out = args.partials + (unsigned)blockIdx.x * (kOut * kChannels + kOut + 2 * kChannels);
    {
        const Weights<kOut, kChannelChunks, false> map(args.weight);
        const Vector<kChannels> scale(args.gamma), shift(args.beta);
        map.store(weight());
        scale.store(gamma());
        shift.store(beta());
    }
    __syncthreads();
    const unsigned room = place_of(0, 0);  // which no warp needs after the last tile
    if (warp < kRowWarps) {
        walk_rows(args, warp, begin, end, tiles);
        __syncthreads();
    } else {
        NormMapSums<kOutTiles> sums = {};
        sum_weights(sums, warp - kRowWarps, tiles);
        __syncthreads();  // the row warps need their tiles no more
        sums.store(warp - kRowWarps, args.weight, gamma(), beta(), out, out + kOut * kChannels,
                   room);
    }
    __syncthreads();
    store_norm_sums(room, out + kOut * kChannels + kOut);
}
