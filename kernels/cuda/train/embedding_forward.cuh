// x[n, :] = dropout(token[ids[n], :] + position[n % L, :]). A group of lanes keeps a position's row
// in registers and meets it with that position's token of eight samples.
#pragma once

#include "kernels/cuda/train/contract.cuh"
#include "kernels/cuda/train/dropout.cuh"
#include "kernels/cuda/train/rows.cuh"

using Layout = RowLayout<kChannels>;
static_assert(Layout::kTiles == 1, "a row must fit into the registers of a warp");

extern "C" __global__ void __launch_bounds__(kThreads)
    embedding_forward(const __grid_constant__ SpionEmbeddingArguments args) {
    const SpionDropout dropout = spion_dropout_now(args.dropout);
    const int chunks = static_cast<int>(spion_position_chunks(args.length));
    const int batch = static_cast<int>(args.rows / args.length);
    const int first_sample = static_cast<int>(blockIdx.x) / chunks * kSpionSamplesPerItem;
    const int first_position = static_cast<int>(blockIdx.x) % chunks * kSpionPositionsPerItem;
    const int samples = min(batch - first_sample, kSpionSamplesPerItem);
    const int positions = min(args.length - first_position, kSpionPositionsPerItem);
    for (int p = Layout::group(); p < positions; p += Layout::kGroups) {
        const int position = first_position + p;
        const long long first_row = static_cast<long long>(first_sample) * args.length + position;
        int ids[kSpionSamplesPerItem];
#pragma unroll
        for (int s = 0; s < kSpionSamplesPerItem; ++s) {
            ids[s] =
                s < samples ? args.ids[first_row + static_cast<long long>(s) * args.length] : 0;
        }
#pragma unroll
        for (int part = 0; part < Layout::kParts; ++part) {
            const int octet = Layout::octet(0, part);
            if (!Layout::has(octet)) continue;
            const Octet here = load_octet(
                args.position, static_cast<long long>(position) * Layout::kOctets + octet, true);
#pragma unroll
            for (int s = 0; s < kSpionSamplesPerItem; ++s) {
                if (s >= samples) break;
                Octet x = load_octet(
                    args.token, static_cast<long long>(ids[s]) * Layout::kOctets + octet, true);
#pragma unroll
                for (int e = 0; e < 8; ++e) x.value[e] += here.value[e];
                const long long row = first_row + static_cast<long long>(s) * args.length;
                const long long index = row * Layout::kOctets + octet;
                drop(x, index, dropout);
                store_packed(args.x, index, pack(x), true);
            }
        }
    }
}
