// The gradients of tokens and positions from one read of d_x and no atomics. A thread block has a few
// positions of all samples: a thread sums an octet of a position in registers, over every n-th four
// samples, and leaves the rows in a tile, from which the rows of token v are added, in order, to a table
// [V, C] in shared memory by warp v % kWarps alone, a lane owning two channels.
#pragma once

#include "kernels/cuda/train/token_position.cuh"

enum : int { kWarps = kThreads / 32 };
enum : int { kSlots = kThreads / kOctets };  // of a position and four samples
enum : int { kTileRows = kSlots * kSpionKeptSamples, kRowBytes = kChannels * 2 };
enum : int { kTileBytes = kTileRows * kRowBytes, kIdBytes = kTileRows * 4 };

// Shared memory: two tiles in turns, their tokens, the table.
SPION_DEVICE unsigned tile(int stage) {
    return shared_memory_start() + stage % 2 * kTileBytes;
}
SPION_DEVICE unsigned tokens(int stage) {
    return shared_memory_start() + 2 * kTileBytes + stage % 2 * kIdBytes;
}
SPION_DEVICE unsigned table() {
    return shared_memory_start() + 2 * (kTileBytes + kIdBytes);
}

// A thread's part of a tile: its octet of four samples, and the token of one of them.
struct Part {
    uint4 d_x[kSpionKeptSamples];
    unsigned kept;
    int token;  // -1: there is no such row
};

SPION_DEVICE Part load_part(const SpionTokenPositionArguments& args, unsigned quad,
                            unsigned position, bool present) {
    const unsigned octet = threadIdx.x % kOctets;
    Part part;
#pragma unroll
    for (int s = 0; s < kSpionKeptSamples; ++s) {
        const unsigned sample = quad * kSpionKeptSamples + s;
        part.d_x[s] = make_uint4(0, 0, 0, 0);
        if (present && sample < (unsigned)args.batch) {
            part.d_x[s] = ((const uint4*)args.d_x)[octet_index(args, sample, position, octet)];
        }
    }
    part.kept = 0;
    if (kDropout > 0.0F && present) part.kept = args.kept[kept_word(args, quad, position, octet)];
    const unsigned sample = quad * kSpionKeptSamples + octet;  // of the token
    part.token = -1;
    if (present && octet < kSpionKeptSamples && sample < (unsigned)args.batch) {
        part.token = args.ids[octet_index(args, sample, position, 0) / kOctets];
    }
    return part;
}

// What dropout keeps of the part into the tile, and added to the position's sums. The scale of what is
// kept is left to the end.
SPION_DEVICE void store_part(const Part& part, int stage, Octet& sums) {
    const int octet = (int)threadIdx.x % kOctets;
    const int row = (int)threadIdx.x / kOctets * kSpionKeptSamples;
    const Kept kept[2] = {Kept(part.kept, 0), Kept(part.kept, 1)};
#pragma unroll
    for (int s = 0; s < kSpionKeptSamples; ++s) {
        const uint4 packed = kept[s / 2].apply(s % 2, part.d_x[s]);
        store_shared_16(tile(stage) + (row + s) * kRowBytes + octet * 16, packed);
        const Octet values = unpack(packed);
#pragma unroll
        for (int e = 0; e < 8; ++e) sums.value[e] += values.value[e];
    }
    if (octet < kSpionKeptSamples) {
        store_shared_word(tokens(stage) + (row + octet) * 4, (unsigned)part.token);
    }
}

// Adds the rows of the tile whose tokens belong to this warp. kAtOnce rows are read before the first is
// added.
SPION_DEVICE void add_rows(int stage) {
    constexpr int kAtOnce = 4;
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    int ids[kTileRows / 32];
#pragma unroll
    for (int i = 0; i < kTileRows / 32; ++i) {
        ids[i] = (int)load_shared_word(tokens(stage) + (32 * i + lane) * 4);
    }
#pragma unroll
    for (int i = 0; i < kTileRows / 32; ++i) {
        unsigned mine = __ballot_sync(0xFFFFFFFFU, ids[i] >= 0 && ids[i] % kWarps == warp);
        while (mine != 0) {
            unsigned rows[kAtOnce], sums[kAtOnce];
            bool there[kAtOnce];
#pragma unroll
            for (int n = 0; n < kAtOnce; ++n) {
                there[n] = mine != 0;
                const int row = there[n] ? __ffs((int)mine) - 1 : 0;
                mine &= mine - 1;
                sums[n] =
                    table() + __shfl_sync(0xFFFFFFFFU, ids[i], row) * kChannels * 4 + lane * 8;
                rows[n] = load_shared_word(tile(stage) + (32 * i + row) * kRowBytes + lane * 4);
            }
#pragma unroll
            for (int n = 0; n < kAtOnce; ++n) {
                if (!there[n]) break;
                const float2 sum = load_shared_float2(sums[n]);
                store_shared_float2(sums[n], sum.x + Element::low(rows[n]),
                                    sum.y + Element::high(rows[n]));
            }
        }
    }
}

// The positions' sums, those of a position's slots in their order; the tiles are of no use any more.
SPION_DEVICE void store_positions(const SpionTokenPositionArguments& args, const Octet& sums,
                                  int quads_at_once) {
    const int positions = args.positions_per_item;
    const unsigned mine = shared_memory_start() + threadIdx.x * 32;
    const float* v = sums.value;
    store_shared_float2(mine, v[0], v[1]);
    store_shared_float2(mine + 8, v[2], v[3]);
    store_shared_float2(mine + 16, v[4], v[5]);
    store_shared_float2(mine + 24, v[6], v[7]);
    __syncthreads();
    for (int i = (int)threadIdx.x; i < positions * kChannels; i += kThreads) {
        const long long out = (long long)blockIdx.x * positions * kChannels + i;
        if (out >= (long long)args.length * kChannels) break;
        float sum = 0.0F;
        for (int n = 0; n < quads_at_once; ++n) {
            sum += load_shared_float(shared_memory_start() + (n * positions * kChannels + i) * 4);
        }
        args.d_position[out] = sum * args.draws.scale;
    }
}

SPION_DEVICE void store_table(const SpionTokenPositionArguments& args) {
    const int count = args.vocabulary * (kChannels / 2);
    float2* out = (float2*)args.d_token_partials + (long long)blockIdx.x * count;
    for (int i = (int)threadIdx.x; i < count; i += kThreads) {
        const float2 sum = load_shared_float2(table() + i * 8);
        out[i] = make_float2(sum.x * args.draws.scale, sum.y * args.draws.scale);
    }
}

extern "C" __global__ void __launch_bounds__(kThreads, 1)
    token_position_backward(const __grid_constant__ SpionTokenPositionArguments args) {
    const int positions = args.positions_per_item, slot = (int)threadIdx.x / kOctets;
    const int quads_at_once = kSlots / positions;
    const int quads = (args.batch + kSpionKeptSamples - 1) / kSpionKeptSamples;
    const int position = (int)blockIdx.x * positions + slot % positions;
    const bool has_position = slot < quads_at_once * positions && position < args.length;
    for (int i = (int)threadIdx.x; i < args.vocabulary * (kChannels / 4); i += kThreads) {
        store_shared_16(table() + i * 16, make_uint4(0, 0, 0, 0));
    }
    Octet sums = {};
    int quad = slot / positions;
    Part next = load_part(args, quad, position, has_position && quad < quads);
    for (int stage = 0; stage * quads_at_once < quads; ++stage) {
        store_part(next, stage, sums);
        __syncthreads();
        quad += quads_at_once;
        next = load_part(args, quad, position, has_position && quad < quads);
        add_rows(stage);
    }
    __syncthreads();
    store_positions(args, sums, quads_at_once);
    store_table(args);
}
