// Rows of a head between global memory and shared memory.
#ifndef SPION_TILE_COPY_CUH
#define SPION_TILE_COPY_CUH

#include "kernels/cuda/common/contract.cuh"
#include "kernels/cuda/common/sequences.cuh"
#include "kernels/cuda/common/tile.cuh"

enum : int { kWarpCopies = 16 * kRowChunks / 32 };  // chunks of a warp's 16 rows a lane moves

// One (batch, head) of a tensor: row l is kChunks chunks of 16 bytes at data + l * row_bytes, a
// tile's row may have more.
template <int kChunks>
struct RowsOf {
    char* data;
    int row_bytes;

    // Whether the tensor has a chunk of the tile's.
    __device__ __forceinline__ static bool has(int chunk) {
        return kChunks == (int)kRowChunks || chunk < kChunks;
    }

    __device__ __forceinline__ char* at(int row, int chunk) const {
        return data + (long long)row * row_bytes + chunk * 16;
    }
};

using Rows = RowsOf<(int)kKeyDim * Element::kBytes / 16>;         // of Q, K and their gradients
using ValueRows = RowsOf<(int)kValueDim * Element::kBytes / 16>;  // of V, O and theirs

// Of a tensor of queries (Q, O, dO, dQ) or, with kOfKeys, of keys (K, V, dK, dV).
template <typename Of = Rows, bool kOfKeys = false>
SPION_DEVICE Of rows_of(const SpionAttentionArguments& args, const SpionTensor& tensor, int batch,
                        int head) {
    long long first = batch * tensor.batch_stride + head * tensor.head_stride;
    if constexpr (kVarlen) {
        first = (long long)starts_of<kOfKeys>(args)[batch] * tensor.row_stride +
                head * tensor.head_stride;
    }
    return {(char*)tensor.data + first * Element::kBytes,
            (int)(tensor.row_stride * Element::kBytes)};
}
SPION_DEVICE ValueRows value_rows_of(const SpionAttentionArguments& args, const SpionTensor& tensor,
                                     int batch, int head) {
    return rows_of<ValueRows>(args, tensor, batch, head);
}
template <typename Of = Rows>
SPION_DEVICE Of key_rows_of(const SpionAttentionArguments& args, const SpionTensor& tensor,
                            int batch, int head) {
    return rows_of<Of, true>(args, tensor, batch, head);
}

// The same rows of the head that is `heads` further.
template <int kChunks>
SPION_DEVICE RowsOf<kChunks> rows_further(const RowsOf<kChunks>& rows, const SpionTensor& tensor,
                                          int heads) {
    return {rows.data + heads * tensor.head_stride * Element::kBytes, rows.row_bytes};
}

// The warp copies rows [first + warp_row, + 16) to rows [warp_row, + 16) of the tile,
// asynchronously; those from `limit` on become zeros.
template <int kChunks>
SPION_DEVICE void copy_warp_rows(unsigned tile, int warp_row, const RowsOf<kChunks>& source,
                                 int first, int limit) {
#pragma unroll kWarpCopies < 4 ? kWarpCopies : 4
    for (int i = 0; i < kWarpCopies; ++i) {
        const int row = copied_row<kRowChunks, 32>(warp_row, i, lane_index());
        const int chunk = copied_chunk<kRowChunks, 32>(i, lane_index());
        cp_async_16(tile + chunk_offset<kRowChunks>(row, chunk), source.at(first + row, chunk),
                    first + row < limit && source.has(chunk));
    }
}

// The warp writes its result [16, D], rows g scaled by factor[0] and rows g + 8 by factor[1], to
// rows [first + warp_row, + 16) below `limit` in global memory, 16 bytes a lane. Rows [warp_row, +
// 16) of the tile serve as staging: no other warp may use them, none of the warp's copies to them
// be pending.
template <int kChunks>
SPION_DEVICE void store_warp_rows(unsigned tile, int warp_row, const float (&acc)[kHeadTiles][4],
                                  const float (&factor)[2], const RowsOf<kChunks>& target,
                                  int first, int limit) {
    const int g = lane_index() / 4, t = lane_index() % 4;
    __syncwarp();
#pragma unroll
    for (int j = 0; j < kHeadTiles; ++j) {
        const int byte = (8 * j + 2 * t) * Element::kBytes;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int row = warp_row + g + 8 * half;
            int offset = chunk_offset<kRowChunks>(row, byte / 16);
            if constexpr (kRowChunks > 32) {
                // The same, with few addresses at once: a lane's result leaves it no registers.
                offset = offset_further<kRowChunks>(chunk_offset<kRowChunks>(row, t / 2), 2 * j);
            }
            store_pair<Element>(tile + offset + byte % 16, acc[j][2 * half] * factor[half],
                                acc[j][2 * half + 1] * factor[half]);
        }
    }
    __syncwarp();
#pragma unroll kWarpCopies < 4 ? kWarpCopies : 4
    for (int i = 0; i < kWarpCopies; ++i) {
        const int row = copied_row<kRowChunks, 32>(warp_row, i, lane_index());
        const int chunk = copied_chunk<kRowChunks, 32>(i, lane_index());
        const uint4 value = load_shared_16(tile + chunk_offset<kRowChunks>(row, chunk));
        if (first + row < limit && target.has(chunk))
            *(uint4*)target.at(first + row, chunk) = value;
    }
}

#endif
