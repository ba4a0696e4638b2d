// Weights from global to shared memory, the columns of every 32 permuted so that a lane's share of four result
// tiles of 8 columns is 8 columns in order: column 8 t + 2 j + e has place 8 j + 2 t + e.
#pragma once

#include "kernels/cuda/common/ptx.cuh"
#include "kernels/cuda/common/tile_layout.cuh"
#include "kernels/cuda/train/contract.cuh"

SPION_DEVICE unsigned word_of(const uint4& octet, int index) {
    return index == 0 ? octet.x : index == 1 ? octet.y : index == 2 ? octet.z : octet.w;
}

// Weights [kRows, 8 * kChunks] on their way into shared memory, columns in their places, and rows too unless
// they meet an operand whose columns have theirs. A thread asks for all of its octets, and for whatever else a
// kernel begins with, before it waits for the first.
template <int kRows, int kChunks, bool kRowsInPlaces = true>
struct Weights {
    enum : int { kOctets = kRows * kChunks, kOfThread = (kOctets + kThreads - 1) / kThreads };
    static_assert(kRows % 32 == 0 && kChunks % 8 == 0);
    uint4 octet[kOfThread];

    __device__ __forceinline__ explicit Weights(const void* source) {
#pragma unroll
        for (int i = 0; i < kOfThread; ++i) {
            const unsigned index = threadIdx.x + i * kThreads;
            if (kOctets % kThreads == 0 || index < kOctets)
                octet[i] = ((const uint4*)source)[index];
        }
    }
    __device__ __forceinline__ void store(unsigned target) const {
#pragma unroll
        for (int i = 0; i < kOfThread; ++i) {
            const unsigned index = threadIdx.x + i * kThreads;
            if (kOctets % kThreads != 0 && index >= kOctets) return;
            const unsigned row = index / kChunks, quarter = index % kChunks;
            const unsigned place =
                kRowsInPlaces ? row / 32 * 32 + row % 8 / 2 * 8 + row % 32 / 8 * 2 + row % 2 : row;
            // The octet's words have the same place in four neighbouring chunks.
            const unsigned first = target + quarter % 4 * 4 +
                                   chunk_offset<kChunks>((int)place, (int)(quarter / 4 * 4));
#pragma unroll
            for (int j = 0; j < 4; ++j) store_shared_word(first ^ j * 16, word_of(octet[i], j));
        }
    }
};
