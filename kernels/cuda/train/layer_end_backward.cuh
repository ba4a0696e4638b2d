// The backward pass of the feed-forward part and its norm, from d_x, the gradient of the residual
// stream after it, and x_middle, the stream before it: everything between is computed again. Out go
// d_x before it, in place, the gradient of the output projection's branch, and those of the weights,
// biases, gamma and beta.
#pragma once

#include "kernels/cuda/train/layer_end.cuh"
#include "kernels/cuda/train/row_gradients.cuh"

enum : int { kHiddenTiles = kHidden / 64 };  // of 16 columns, a weight warp
enum : int {
    kWideTileBytes = kTileRows * kHidden * 2,
    kNarrowTileBytes = kTileRows * kChannels * 2
};
enum : int { kPlaceBytes = 2 * kWideTileBytes + 3 * kNarrowTileBytes };
enum : int { kX, kGradient };  // tensors of the queue
using Queue = LaneQueue<2>;
using Words = WordQueue<kStatisticWords + kKeptWords>;
static_assert(kChannels == 16 * kWeightWarps, "a weight warp's share");

// Shared memory: the weights, the vectors, the halves' places, the row warps' queues.
SPION_DEVICE unsigned weight1() {
    return shared_memory_start();
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
SPION_DEVICE unsigned bias1() {
    return beta() + kChannels * 4;
}
// A half's tiles [64, kHidden] twice and [64, kChannels] twice. The units have two places in turn: they
// are written before the weight warps are done with the tile before.
struct Place {
    unsigned d_hidden, gated, d_branch, units;
};
SPION_DEVICE Place place_of(int half, int tile) {
    const unsigned start = bias1() + kHidden * 4 + half * kPlaceBytes;
    const unsigned narrow = start + 2 * kWideTileBytes;
    return {start, start + kWideTileBytes, narrow, narrow + (1 + tile % 2) * kNarrowTileBytes};
}

SPION_DEVICE unsigned queues() {
    return place_of(2, 0).d_hidden;
}
// Shared memory that no warp needs after the last tile.
SPION_DEVICE unsigned room() {
    return place_of(0, 0).d_hidden;
}

// dropout(d_x).
SPION_DEVICE WarpRows dropped(const WarpRows& d_x, unsigned kept, float factor) {
    WarpRows result;
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
        const Kept mask(kept, group);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            Octet octet = unpack(d_x.octet[h][group]);
            scale(octet, factor);
            result.octet[h][group] = mask.apply(h, pack(octet));
        }
    }
    return result;
}

// gelu(hidden), scaled as dropout wants it, and the gradient of that becomes the one of hidden.
SPION_DEVICE void through_gelu(Octet& hidden, Octet& gradient, float scale) {
    const float half = 0.5F * scale, bell_scale = 0.39894228040143268F * scale;  // 1 / sqrt(2 pi)
#pragma unroll
    for (int e = 0; e < 8; ++e) {
        const float x = hidden.value[e];
        const float distribution = half + with_sign(half - scale * normal_tail(x), x);  // P(x)
        gradient.value[e] *= distribution + x * normal_bell(x) * bell_scale;
        hidden.value[e] = x * distribution;
    }
}

// Of a warp's rows: hidden and gated again and the gradient of hidden into their tiles, d_normed out. The
// tiles of half `half` are waited for when there is something to store.
SPION_DEVICE void through_feed_forward(WarpSums& d_normed, const WarpOperands& normed,
                                       const WarpOperands& d_branch, float factor,
                                       const Words& words, int stage, const Place& place, int half,
                                       int warp_row) {
#pragma unroll 1
    for (int n = 0; n < kHidden / 32; ++n) {
        const int chunk = 4 * n + lane_octet();
        float hidden[4][4], d_gated[4][4] = {};
        start(hidden, vector_octet(bias1(), chunk));
#pragma unroll
        for (int k = 0; k < kGroups; ++k) {
            multiply_by_rows<kChannelChunks>(hidden, normed.group[k], weight1(), n, k);
            multiply_by_columns<kHiddenChunks>(d_gated, d_branch.group[k], weight2(), n, k);
        }
        Octet gated[2] = {octet_of(hidden, 0), octet_of(hidden, 1)};
        Octet d[2] = {octet_of(d_gated, 0), octet_of(d_gated, 1)};
#pragma unroll
        for (int h = 0; h < 2; ++h) through_gelu(gated[h], d[h], factor);
        const Kept kept(words.word(stage, kStatisticWords + kKeptGelu + n / 2), n);
        uint4 d_hidden[2];
        if (n == 0) bar_sync(empty(half), kMeeting);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int below = 8 * h * kHiddenChunks * 16;
            store_shared_16(
                octet_address<kHiddenChunks>(place.gated, warp_row + lane_row(), n) + below,
                kept.apply(h, pack(gated[h])));
            d_hidden[h] = kept.apply(h, pack(d[h]));
            store_shared_16(
                octet_address<kHiddenChunks>(place.d_hidden, warp_row + lane_row(), n) + below,
                d_hidden[h]);
        }
        const Operand operand = operand_of(d_hidden[0], d_hidden[1]);
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
            multiply_by_columns<kChannelChunks>(d_normed.acc[group], operand, weight1(), group, n);
        }
    }
}

// d_x = residual + d, and d_branch.
SPION_DEVICE void store_rows(const SpionLayerEndArguments& args, const WarpSums& d,
                             const WarpRows& residual, unsigned kept, unsigned first,
                             unsigned end) {
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
        const Kept mask(kept, group);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const unsigned row = first + lane_row() + 8 * h;
            const unsigned index = row * kChannelChunks + 4 * group + lane_octet();
            Octet sum = octet_of(d.acc[group], h);
            add(sum, unpack(residual.octet[h][group]));
            store_global_16((uint4*)args.d_x + index, pack(sum), row < end);
            scale(sum, args.scale);
            store_global_16((uint4*)args.d_branch + index, mask.apply(h, pack(sum)), row < end);
        }
    }
}

// What a warp does for its 16 rows of every other tile.
SPION_DEVICE void walk_rows(const SpionLayerEndArguments& args, int warp, unsigned begin,
                            unsigned end) {
    const int half = warp / kTileWarps, warp_row = warp % kTileWarps * kWarpRows;
    const Queue queue{queues() + warp * Queue::kWarpBytes};
    const Words words{queues() + kRowWarps * Queue::kWarpBytes + warp * Words::kWarpBytes};
    const auto fetch = [&](int i) {
        const unsigned first = begin + (2 * i + half) * kTileRows + warp_row;
        queue.fetch(i, kX, args.x_middle, first, end);
        queue.fetch(i, kGradient, args.d_x, first, end);
        fetch_statistics(words, i, args.mean, args.rstd, first, end);
#pragma unroll
        for (int word = 0; word < (kDropout > 0.0F ? kKeptWords : 0); ++word) {
            words.fetch(i, kStatisticWords + word, args.kept + kept_index(first) + 32 * word,
                        first < end);
        }
    };
    fetch(0);  // zeros, where there is no tile
    cp_async_commit_group();
    for (int i = 0; begin + (2 * i + half) * kTileRows < end; ++i) {
        const unsigned first = begin + (2 * i + half) * kTileRows + warp_row;
        fetch(i + 1);
        cp_async_commit_group();
        cp_async_wait_group<1>();
        const Place place = place_of(half, i);
        WarpSums d = {};
        {
            const Statistics of = statistics(words, i);
            const WarpRows rows = queue.rows(i, kX);
            store_narrow(place.units, warp_row, units_of(rows, of));
            const WarpOperands normed = operands_of(normalise(rows, of, gamma(), beta()));
            const WarpOperands d_branch =
                operands_of(dropped(queue.rows(i, kGradient),
                                    words.word(i, kStatisticWords + kKeptBranch), args.scale));
            through_feed_forward(d, normed, d_branch, args.scale, words, i, place, half, warp_row);
            store_narrow(place.d_branch, warp_row, rows_of(d_branch));
        }
        bar_arrive(full(half), kMeeting);
        norm_gradient(d, queue.rows(i, kX), statistics(words, i), gamma());
        store_rows(args, d, queue.rows(i, kGradient), words.word(i, kStatisticWords + kKeptOut),
                   first, end);
    }
}

// Weight warp `warp` has columns [16 kHiddenTiles warp, + 16 kHiddenTiles) of hidden, for both maps,
// and columns [16 warp, + 16) of the second one's bias.
struct WeightSums {
    NormMapSums<kHiddenTiles> map1;
    float weight2[kHiddenTiles][kGroups * 4][4];  // transposed_operand's columns by kChannels
    float bias2[4];
};

SPION_DEVICE void add_tile(WeightSums& sums, const Place& place, int warp) {
    const unsigned ones = Element::pack(1.0F, 1.0F);
#pragma unroll 1
    for (int k = 0; k < kTileRows / 16; ++k) {
        const int lane = (int)(threadIdx.x % 32 + run_time_zero());  // addresses are made each time
        sums.map1.add<kHiddenChunks>(place.d_hidden, place.units, k, warp, lane);
        unsigned a[kHiddenTiles][4], b[4];
#pragma unroll
        for (int m = 0; m < kHiddenTiles; ++m) {
            transposed_operand<kHiddenChunks>(a[m], place.gated, k, 2 * (kHiddenTiles * warp + m),
                                              lane);
        }
#pragma unroll
        for (int n = 0; n < kGroups * 4; n += 2) {
            column_operand<kChannelChunks>(b, place.d_branch, k, n, lane);
#pragma unroll
            for (int m = 0; m < kHiddenTiles; ++m) {
                Element::mma(sums.weight2[m][n], a[m], b[0], b[1]);
                Element::mma(sums.weight2[m][n + 1], a[m], b[2], b[3]);
            }
        }
        column_operand<kChannelChunks>(b, place.d_branch, k, 2 * warp, lane);
#pragma unroll
        for (int i = 0; i < 2; ++i) {  // row i sums the columns of the i-th eight
            const unsigned row = lane_row() == i ? ones : 0;
            const unsigned rows[4] = {row, 0, row, 0};
            Element::mma(sums.bias2, rows, b[2 * i], b[2 * i + 1]);
        }
    }
}

// The item's partial row: d_W1, d_b1, d_W2, d_b2, d_gamma, d_beta.
SPION_DEVICE float* partial_row(const SpionLayerEndArguments& args) {
    return args.partials + blockIdx.x * (2 * kHidden * kChannels + kHidden + 3 * kChannels);
}

SPION_DEVICE void store_weights(const SpionLayerEndArguments& args, const WeightSums& sums,
                                int warp) {
    const int g = lane_row(), t = lane_octet();
    float* out1 = partial_row(args);
    float* out2 = out1 + kHidden * kChannels + kHidden;
#pragma unroll
    for (int m = 0; m < kHiddenTiles; ++m) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int column = 16 * (kHiddenTiles * warp + m) + g + 8 * h;  // of hidden
#pragma unroll
            for (int n = 0; n < kGroups * 4; ++n) {
                const int channel = 8 * n + 2 * t;
                out2[channel * kHidden + column] = sums.weight2[m][n][2 * h];
                out2[(channel + 1) * kHidden + column] = sums.weight2[m][n][2 * h + 1];
            }
        }
    }
    if (g < 2) {
        *(float2*)(out2 + kHidden * kChannels + 16 * warp + 8 * g + 2 * t) =
            make_float2(sums.bias2[0], sums.bias2[1]);
    }
    sums.map1.store(warp, args.weight1, gamma(), beta(), out1, out1 + kHidden * kChannels, room());
}

SPION_DEVICE void load_parameters(const SpionLayerEndArguments& args) {
    const Weights<kHidden, kChannelChunks> first(args.weight1);
    const Weights<kChannels, kHiddenChunks> second(args.weight2);
    const Vector<kChannels> scale(args.gamma), shift(args.beta);
    const Vector<kHidden> of_first(args.bias1);
    first.store(weight1());
    second.store(weight2());
    scale.store(gamma());
    shift.store(beta());
    of_first.store(bias1());
}

extern "C" __global__ void __launch_bounds__(kThreads, 1)
    layer_end_backward(const __grid_constant__ SpionLayerEndArguments args) {
    const int warp =
        __shfl_sync(0xFFFFFFFFU, (int)threadIdx.x / 32, 0);  // the same, in one register
    const unsigned begin = blockIdx.x * (unsigned)args.rows_per_item;
    const unsigned end = item_end(args, begin);
    const int tiles = (int)((end - begin + kTileRows - 1) / kTileRows);
    load_parameters(args);
    __syncthreads();
    if (warp < kRowWarps) {
        walk_rows(args, warp, begin, end);
        __syncthreads();
    } else {
        WeightSums sums = {};
        for (int half = 0; half < 2 && half < tiles; ++half) bar_arrive(empty(half), kMeeting);
        for (int j = 0; j < tiles; ++j) {
            bar_sync(full(j % 2), kMeeting);
            add_tile(sums, place_of(j % 2, j / 2), warp - kRowWarps);
            if (j + 2 < tiles) bar_arrive(empty(j % 2), kMeeting);
        }
        __syncthreads();  // the row warps need their tiles no more
        store_weights(args, sums, warp - kRowWarps);
    }
    __syncthreads();
    store_norm_sums(room(), partial_row(args) + 2 * kHidden * kChannels + kHidden + kChannels);
}
