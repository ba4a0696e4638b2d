// bf16 and fp16 on tensor cores: mma.m16n8k16, operands by ldmatrix.
#ifndef SPION_WARP_MMA16_CUH
#define SPION_WARP_MMA16_CUH

#include "kernels/cuda/common/contract.cuh"
#include "kernels/cuda/common/tile.cuh"

template <typename E>
struct Mma16 {
    enum : int { kStep = 16 };  // columns of a fragment: 2 chunks

    struct Fragment {
        unsigned words[4];
    };

    SPION_DEVICE Fragment load(unsigned tile, int row, int step) {
        const LaneChunk lane_chunk = lane_chunk_by_rows(lane_index());
        const int lane_offset = chunk_offset<kRowChunks>(lane_chunk.row, lane_chunk.chunk);
        Fragment a;
        ldmatrix_x4(a.words,
                    tile + row * kRowBytes + offset_further<kRowChunks>(lane_offset, 2 * step));
        return a;
    }

    // [16, D] * [n, D]^T: the contraction runs along the tile's rows of memory.
    template <int kTiles, typename Left>
    SPION_DEVICE void multiply_transposed(float (&acc)[kTiles][4], const Left& left, unsigned tile,
                                          int row) {
        static_assert(kTiles % 2 == 0, "B operands come 16 rows at a time");
        const LaneChunk lane_chunk = lane_chunk_by_chunks(lane_index());
        const int lane_offset = chunk_offset<kRowChunks>(lane_chunk.row, lane_chunk.chunk);
#pragma unroll Left::kUnrolled
        for (int step = 0; step < kHeadDim / kStep; ++step) {
            const Fragment a = left[step];
            const unsigned start =
                tile + row * kRowBytes + offset_further<kRowChunks>(lane_offset, 2 * step);
#pragma unroll
            for (int j = 0; j < kTiles; j += 2) {
                unsigned b[4];
                ldmatrix_x4(b, start + j * 8 * kRowBytes);
                E::mma(acc[j], a.words, b[0], b[1]);
                E::mma(acc[j + 1], a.words, b[2], b[3]);
            }
        }
    }

    // [16, n] * [n, D]: the contraction runs across the rows, so B is read transposed. Tiles 2s and
    // 2s + 1 of an accumulator, packed, are the fragment of columns [16 s, 16 s + 16).
    template <int kTiles>
    SPION_DEVICE void multiply(float (&acc)[kHeadTiles][4], const float (&left)[kTiles][4],
                               unsigned tile, int row) {
        static_assert(kTiles % 2 == 0, "A operands come 16 columns at a time");
        const LaneChunk lane_chunk = lane_chunk_by_rows(lane_index());
        const int lane_offset = chunk_offset<kRowChunks>(lane_chunk.row, lane_chunk.chunk);
#pragma unroll
        for (int step = 0; step < kTiles / 2; ++step) {
            const float(&low)[4] = left[2 * step];
            const float(&high)[4] = left[2 * step + 1];
            const unsigned a[4] = {E::pack(low[0], low[1]), E::pack(low[2], low[3]),
                                   E::pack(high[0], high[1]), E::pack(high[2], high[3])};
            const unsigned start = tile + (row + 16 * step) * kRowBytes;
#pragma unroll
            for (int j = 0; j < kHeadTiles; j += 2) {
                unsigned b[4];
                ldmatrix_x4_trans(b, start + offset_further<kRowChunks>(lane_offset, j));
                E::mma(acc[j], a, b[0], b[1]);
                E::mma(acc[j + 1], a, b[2], b[3]);
            }
        }
    }
};

#endif
