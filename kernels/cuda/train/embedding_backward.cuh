// Token gradients of a range of rows as one table [V, kTableChannels] in shared memory, without
// atomics: rows are staged with their dropout, and the rows of token v are added, in order, by warp
// v % kWarps alone, a lane owning channels. Dynamic shared memory: the table, then the staged rows.
#pragma once

#include "kernels/cuda/train/contract.cuh"
#include "kernels/cuda/train/dropout.cuh"
#include "kernels/cuda/train/rows.cuh"

enum : int { kTableOctets = kTableChannels / 8 };
static_assert(kChannels % kTableChannels == 0, "a slice of channels is whole");

// Stages rows [first, first + kStagedRows) of the slice that starts at octet `slice`, dropped ones
// zeroed; rows from `end` on are not read.
__device__ void stage_rows(const SpionEmbeddingArguments& args, long long first, long long end,
                           const SpionDropout& dropout, int slice, uint4* staged,
                           unsigned short* staged_ids) {
    constexpr int kPerThread = (kStagedRows * kTableOctets + kThreads - 1) / kThreads;
    uint4 packed[kPerThread];
#pragma unroll
    for (int n = 0; n < kPerThread; ++n) {
        const int unit = n * kThreads + threadIdx.x;
        const long long row = first + unit / kTableOctets;
        const long long index = row * (kChannels / 8) + slice + unit % kTableOctets;
        packed[n] = load_packed(args.d_x, index, unit < kStagedRows * kTableOctets && row < end);
    }
    for (int n = threadIdx.x; n < kStagedRows && first + n < end; n += kThreads) {
        staged_ids[n] = args.ids[first + n];
    }
#pragma unroll
    for (int n = 0; n < kPerThread; ++n) {
        const int unit = n * kThreads + threadIdx.x;
        if (unit >= kStagedRows * kTableOctets) break;
        const long long row = first + unit / kTableOctets;
        const long long index = row * (kChannels / 8) + slice + unit % kTableOctets;
        if constexpr (kDropout > 0.0F) {
            if (dropout.enabled != 0) {
                // Only zeroed here: the scale of kept values is applied once, to the sums.
                constexpr unsigned int kThreshold = spion_dropout_threshold(kDropout);
                const SpionRandomBits bits =
                    spion_random_bits(index, dropout.stream, dropout.step, dropout.seed);
                unsigned int keep[4];
#pragma unroll
                for (int w = 0; w < 4; ++w) {
                    keep[w] = (spion_keep(bits, 2 * w, kThreshold) ? 0x0000FFFFU : 0U) |
                              (spion_keep(bits, 2 * w + 1, kThreshold) ? 0xFFFF0000U : 0U);
                }
                packed[n].x &= keep[0];
                packed[n].y &= keep[1];
                packed[n].z &= keep[2];
                packed[n].w &= keep[3];
            }
        }
        staged[unit] = packed[n];
    }
}

// Adds the staged rows whose token belongs to this warp to the table.
__device__ void add_rows(float* table, const uint4* staged, const unsigned short* staged_ids,
                         int rows) {
    const int warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;
    for (int base = 0; base < rows; base += kWarpLanes) {
        const int id = base + lane < rows ? staged_ids[base + lane] : -1;
        unsigned int mine = __ballot_sync(kAllLanes, id >= 0 && id % kWarps == warp);
        while (mine != 0) {
            const int r = __ffs(mine) - 1;
            mine &= mine - 1;
            const int token = __shfl_sync(kAllLanes, id, r);
            const unsigned int* row =
                reinterpret_cast<const unsigned int*>(staged + (base + r) * kTableOctets);
            float2* sums = reinterpret_cast<float2*>(table + token * kTableChannels);
            for (int pair = lane; pair < kTableChannels / 2; pair += kWarpLanes) {
                float2 sum = sums[pair];
                sum.x += Element::low(row[pair]);
                sum.y += Element::high(row[pair]);
                sums[pair] = sum;
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(kThreads)
    embedding_backward(const __grid_constant__ SpionEmbeddingArguments args) {
    uint4* shared = reinterpret_cast<uint4*>(spion_shared_memory);
    constexpr int kSlices = kChannels / kTableChannels;
    const int vocabulary = args.vocabulary;
    const long long table_index = blockIdx.x / kSlices;
    const int slice = static_cast<int>(blockIdx.x) % kSlices * kTableOctets;
    float* table = reinterpret_cast<float*>(shared);
    uint4* staged = shared + vocabulary * (kTableChannels / 4);
    unsigned short* staged_ids =
        reinterpret_cast<unsigned short*>(staged + kStagedRows * kTableOctets);
    const long long rows_per_item = spion_token_rows_per_item(vocabulary);
    const long long end = min((table_index + 1) * rows_per_item, args.rows);

    const SpionDropout dropout = spion_dropout_now(args.dropout);
    for (int i = threadIdx.x; i < vocabulary * (kTableChannels / 4); i += kThreads) {
        shared[i] = make_uint4(0, 0, 0, 0);
    }
    for (long long first = table_index * rows_per_item; first < end; first += kStagedRows) {
        stage_rows(args, first, end, dropout, slice, staged, staged_ids);
        __syncthreads();
        add_rows(table, staged, staged_ids,
                 static_cast<int>(min(end - first, static_cast<long long>(kStagedRows))));
        __syncthreads();
    }
    const float scale = kDropout > 0.0F && dropout.enabled != 0 ? 1.0F / (1.0F - kDropout) : 1.0F;
    for (int i = threadIdx.x; i < vocabulary * kTableOctets; i += kThreads) {
        Octet sums = load_octet(table, i, true);
#pragma unroll
        for (float& value : sums.value) value *= scale;
        const long long row = table_index * vocabulary + i / kTableOctets;
        store_octet(args.d_token_partials, row * (kChannels / 8) + slice + i % kTableOctets, sums);
    }
}
