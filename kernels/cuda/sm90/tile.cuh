// Tiles of 16-bit elements as TMA writes and wgmma reads them, and a warpgroup's products of them.
//
// A tile [rows, D] is kept in swizzle atoms: swizzle atom c holds columns [c * kSwizzleAtomColumns,
// + kSwizzleAtomColumns) of all rows, a row of kSwizzleAtomBytes after the other. The 16-byte
// chunks of a swizzle atom are permuted by the hardware's swizzle, which repeats every 8 rows;
// every swizzle atom starts at a multiple of 8 rows.
#ifndef SPION_SM90_TILE_CUH
#define SPION_SM90_TILE_CUH

#include "kernels/cuda/common/contract.cuh"
#include "kernels/cuda/common/tile.cuh"
#include "kernels/cuda/common/tile_copy.cuh"
#include "kernels/cuda/sm90/wgmma.cuh"

enum : int { kSwizzleAtomBytes = kRowBytes % 128 == 0 ? 128 : kRowBytes % 64 == 0 ? 64 : 32 };
enum : int { kSwizzleAtomColumns = kSwizzleAtomBytes / 2 };
enum : int { kSwizzleAtoms = kRowBytes / kSwizzleAtomBytes };
enum : int { kGroupRows = 64 };  // stationary rows of a warpgroup
enum : int { kGroupTileBytes = kGroupRows * kRowBytes };
// Accumulator tiles of a result as wide as Q and K, and as V: of a tile's columns those that exist,
// in steps of 16.
enum : int { kKeyTiles = (kKeyDim + 15) / 16 * 2, kValueTiles = (kValueDim + 15) / 16 * 2 };

// A descriptor is start / 16, the pitch of swizzle atoms / 16 at bit 16 (only read across rows),
// the pitch of groups of 8 rows / 16 at bit 32, and the swizzle at bit 62.
enum : unsigned long long {
    kSwizzleCode = kSwizzleAtomBytes == 128  ? 1
                   : kSwizzleAtomBytes == 64 ? 2
                                             : 3
};

template <int kRows>
SPION_DEVICE unsigned long long tile_descriptor(unsigned start) {
    constexpr unsigned long long kShape =
        kSwizzleCode << 62 | (unsigned long long)(8 * kSwizzleAtomBytes / 16) << 32 |
        (unsigned long long)(kRows * kSwizzleAtomBytes / 16) << 16;
    return kShape | (start >> 4);
}

// Where bytes [byte, + 4 or + 16) of row `row` of a swizzle atom lie, from its start.
SPION_DEVICE int swizzled(int row, int byte) {
    const int offset = row * kSwizzleAtomBytes + byte;
    return offset ^ (offset % (8 * kSwizzleAtomBytes) >> 7 << 4);
}

// The same of a row of a tile of kRows rows, from the tile's start.
template <int kRows>
SPION_DEVICE int tile_offset(int row, int byte) {
    return byte / kSwizzleAtomBytes * kRows * kSwizzleAtomBytes +
           swizzled(row, byte % kSwizzleAtomBytes);
}

// acc[64, kRows] = stationary[64, kDepth] * streamed[kRows, kDepth]^T, both tiles in shared memory;
// kDepth is D or Dv. Asynchronous, as the next: the caller fences, commits and waits.
template <int kRows, int kDepth>
SPION_DEVICE void start_scores(float (&acc)[kRows / 8][4], unsigned stationary, unsigned streamed) {
    const unsigned long long left = tile_descriptor<kGroupRows>(stationary);
    const unsigned long long right = tile_descriptor<kRows>(streamed);
#pragma unroll
    for (int pair = 0; pair < (kDepth + 31) / 32; ++pair) {  // of steps of 16; the rest is padding
        const int swizzle_atom = 64 * pair / kSwizzleAtomBytes,
                  byte = 64 * pair % kSwizzleAtomBytes;
        Wgmma<Element, kRows>::products(
            acc, left + (swizzle_atom * kGroupRows * kSwizzleAtomBytes + byte) / 16,
            right + (swizzle_atom * kRows * kSwizzleAtomBytes + byte) / 16, pair > 0);
    }
}

// acc[64, 8 * kTiles] += left[64, 16 * kSteps] * streamed[16 * kSteps, 8 * kTiles]; of these the
// contraction over steps of 16 from kFirst until kEnd.
template <int kFirst, int kEnd, int kTiles, int kSteps>
SPION_DEVICE void start_part_of_sum(float (&acc)[kTiles][4], const unsigned (&left)[kSteps][4],
                                    unsigned streamed) {
    static_assert(kFirst % 2 == 0 && kEnd % 2 == 0);
    const unsigned long long right = tile_descriptor<16 * kSteps>(streamed);
#pragma unroll
    for (int step = kFirst; step < kEnd; step += 2) {
        Wgmma<Element, 8 * kTiles>::template products<kSwizzleAtomBytes>(
            acc, left[step], left[step + 1], right + step * kSwizzleAtomBytes);
    }
}

template <int kTiles, int kSteps>
SPION_DEVICE void start_sum(float (&acc)[kTiles][4], const unsigned (&left)[kSteps][4],
                            unsigned streamed) {
    start_part_of_sum<0, kSteps>(acc, left, streamed);
}

// An accumulator [64, 8 * kTiles] as the left operand of a product; of its columns those from
// 8 * kFirst until 8 * kEnd.
template <int kFirst, int kEnd, int kTiles>
SPION_DEVICE void pack_part(unsigned (&left)[kTiles / 2][4], const float (&acc)[kTiles][4]) {
#pragma unroll
    for (int step = kFirst / 2; step < kEnd / 2; ++step) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float(&pair)[4] = acc[2 * step + i / 2];
            left[step][i] = Element::pack(pair[2 * (i % 2)], pair[2 * (i % 2) + 1]);
        }
    }
}

template <int kTiles>
SPION_DEVICE void pack_operand(unsigned (&left)[kTiles / 2][4], const float (&acc)[kTiles][4]) {
    pack_part<0, kTiles>(left, acc);
}

// Rows [first, kRows) of a tile become zeros, by the 128 threads of a warpgroup; barrier `id` is
// the warpgroup's own. What is zeroed need not have been finite.
template <int kRows>
SPION_DEVICE void zero_rows(unsigned tile, int first, int id) {
    for (int chunk = first * kRowChunks + (int)threadIdx.x % 128; chunk < kRows * kRowChunks;
         chunk += 128) {
        const unsigned address =
            tile + tile_offset<kRows>(chunk / kRowChunks, chunk % kRowChunks * 16);
        store_shared_16(address, make_uint4(0, 0, 0, 0));
    }
    fence_proxy_async_shared();
    bar_sync(id, 128);
}

// A warp's 16 rows of a result as wide as a tile or less, on their way to global memory, 16 bytes a lane, through its
// rows of a tile of the warpgroup. Once they have been taken from there, the tile may be filled
// anew.
struct ResultRows {
    enum : int { kAtOnce = 32 / kRowChunks };  // rows
    uint4 chunks[16 / kAtOnce];

    // Rows g of `acc` scaled by factor[0], rows g + 8 by factor[1], rounded.
    template <int kTiles>
    __device__ __forceinline__ void take(unsigned tile, const float (&acc)[kTiles][4],
                                         const float (&factor)[2]) {
        const int warp_row = warp_index() % 4 * 16;
        // A store's matrices: rows 0 to 7 and 8 to 15 of 8 columns, then of the next 8. A tile
        // starts at a multiple of 1024, so that XOR moves within a swizzle atom's row.
        const int matrix = lane_index() / 8;
        const unsigned start =
            tile + swizzled(warp_row + matrix % 2 * 8 + lane_index() % 8, matrix / 2 * 16);
        __syncwarp();
#pragma unroll
        for (int j = 0; j < kTiles; j += 2) {
            unsigned values[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float(&part)[4] = acc[j + i / 2];
                const int half = i % 2;
                values[i] =
                    Element::pack(part[2 * half] * factor[half], part[2 * half + 1] * factor[half]);
            }
            const int swizzle_atom = 16 * j / kSwizzleAtomBytes, byte = 16 * j % kSwizzleAtomBytes;
            stmatrix_x4((start ^ byte) + swizzle_atom * kGroupRows * kSwizzleAtomBytes, values);
        }
        __syncwarp();
        const int row = warp_row + lane_index() / kRowChunks;
        const int byte = lane_index() % kRowChunks * 16;
#pragma unroll
        for (int i = 0; i < 16 / kAtOnce; ++i) {
            chunks[i] = load_shared_16(tile + tile_offset<kGroupRows>(row + i * kAtOnce, byte));
        }
    }

    // To rows [first, + 16) below `limit`.
    template <int kChunks>
    __device__ __forceinline__ void store(const RowsOf<kChunks>& target, int first,
                                          int limit) const {
        const int row = first + lane_index() / kRowChunks;
        char* const start = target.at(row, lane_index() % kRowChunks);
#pragma unroll
        for (int i = 0; i < 16 / kAtOnce; ++i) {
            if (row + i * kAtOnce < limit && target.has(lane_index() % kRowChunks)) {
                *(uint4*)(start + (long long)(i * kAtOnce) * target.row_bytes) = chunks[i];
            }
        }
    }
};

#endif
