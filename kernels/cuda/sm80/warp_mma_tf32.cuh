// fp32 storage, tf32 products on tensor cores: mma.m16n8k8. The instruction wants k = t and t + 4
// of its 8 in lane t of a quad where an accumulator holds columns 2t and 2t + 1: both operands are
// relabelled alike (t -> 2t, t + 4 -> 2t + 1), which leaves the product as it is.
#ifndef SPION_WARP_MMA_TF32_CUH
#define SPION_WARP_MMA_TF32_CUH

#include "kernels/cuda/common/contract.cuh"
#include "kernels/cuda/common/tile.cuh"

struct MmaTf32 {
    enum : int { kStep = 8 };

    struct Fragment {
        unsigned words[4];
    };

    SPION_DEVICE Fragment load(unsigned tile, int row, int step) {
        const int g = lane_index() / 4, t = lane_index() % 4;
        const unsigned start = tile + row * kRowBytes;
        const float2 top = load_pair(start, g, 2 * t, step * 8);
        const float2 bottom = load_pair(start + 8 * kRowBytes, g, 2 * t, step * 8);
        return {{cvt_rna_tf32(top.x), cvt_rna_tf32(bottom.x), cvt_rna_tf32(top.y),
                 cvt_rna_tf32(bottom.y)}};
    }

    template <int kTiles, typename Left>
    SPION_DEVICE void multiply_transposed(float (&acc)[kTiles][4], const Left& left, unsigned tile,
                                          int row) {
        const int g = lane_index() / 4, t = lane_index() % 4;
#pragma unroll Left::kUnrolled
        for (int step = 0; step < kHeadDim / kStep; ++step) {
            const Fragment a = left[step];
#pragma unroll
            for (int j = 0; j < kTiles; ++j) {
                const unsigned start = tile + (row + 8 * j) * kRowBytes;
                const float2 b = load_pair(start, g, 2 * t, step * 8);
                mma_tf32(acc[j], a.words, cvt_rna_tf32(b.x), cvt_rna_tf32(b.y));
            }
        }
    }

    template <int kTiles>
    SPION_DEVICE void multiply(float (&acc)[kHeadTiles][4], const float (&left)[kTiles][4],
                               unsigned tile, int row) {
        const int g = lane_index() / 4, t = lane_index() % 4;
#pragma unroll
        for (int step = 0; step < kTiles; ++step) {
            const float(&c)[4] = left[step];
            const unsigned a[4] = {cvt_rna_tf32(c[0]), cvt_rna_tf32(c[2]), cvt_rna_tf32(c[1]),
                                   cvt_rna_tf32(c[3])};
            const unsigned start = tile + (row + 8 * step) * kRowBytes;
#pragma unroll
            for (int j = 0; j < kHeadTiles; ++j) {
                const float b0 = load_single(start, 2 * t, g, 8 * j);
                const float b1 = load_single(start, 2 * t + 1, g, 8 * j);
                mma_tf32(acc[j], a, cvt_rna_tf32(b0), cvt_rna_tf32(b1));
            }
        }
    }
};

#endif
