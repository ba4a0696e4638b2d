// fp32 storage, IEEE fp32 products: the layouts of the tensor core engines, multiplied by FFMA. The
// left operand's value in column 8 s + 2 u + c is held by lane u of each quad, which hands it
// round. The loop over u is not unrolled: it divides the size of the code by 4.
#ifndef SPION_WARP_MMA_FMA32_CUH
#define SPION_WARP_MMA_FMA32_CUH

#include "kernels/cuda/common/contract.cuh"
#include "kernels/cuda/common/tile.cuh"

struct Fma32 {
    enum : int { kStep = 8 };

    struct Fragment {
        float values[4];  // as an accumulator tile
    };

    // The values of lane u of the caller's quad.
    SPION_DEVICE Fragment of_lane(const float (&values)[4], int u) {
        Fragment a;
#pragma unroll
        for (int i = 0; i < 4; ++i) a.values[i] = __shfl_sync(0xFFFFFFFFU, values[i], u, 4);
        return a;
    }

    // acc[2 x 2] += a[2 x 2] * {{b0.x, b1.x}, {b0.y, b1.y}}: b0, b1 = the two columns of B.
    SPION_DEVICE void multiply_columns(float (&acc)[4], const Fragment& a, float2 b0, float2 b1) {
        acc[0] = __fmaf_rn(a.values[1], b0.y, __fmaf_rn(a.values[0], b0.x, acc[0]));
        acc[1] = __fmaf_rn(a.values[1], b1.y, __fmaf_rn(a.values[0], b1.x, acc[1]));
        acc[2] = __fmaf_rn(a.values[3], b0.y, __fmaf_rn(a.values[2], b0.x, acc[2]));
        acc[3] = __fmaf_rn(a.values[3], b1.y, __fmaf_rn(a.values[2], b1.x, acc[3]));
    }

    SPION_DEVICE Fragment load(unsigned tile, int row, int step) {
        const int g = lane_index() / 4, t = lane_index() % 4;
        const unsigned start = tile + row * kRowBytes;
        const float2 top = load_pair(start, g, 2 * t, step * 8);
        const float2 bottom = load_pair(start + 8 * kRowBytes, g, 2 * t, step * 8);
        return {{top.x, top.y, bottom.x, bottom.y}};
    }

    template <int kTiles, typename Left>
    SPION_DEVICE void multiply_transposed(float (&acc)[kTiles][4], const Left& left, unsigned tile,
                                          int row) {
        const int t = lane_index() % 4;
#pragma unroll 1
        for (int u = 0; u < 4; ++u) {
#pragma unroll Left::kUnrolled
            for (int step = 0; step < kHeadDim / kStep; ++step) {
                const Fragment a = of_lane(left[step].values, u);
#pragma unroll
                for (int j = 0; j < kTiles; ++j) {
                    const unsigned start = tile + (row + 8 * j) * kRowBytes;
                    multiply_columns(acc[j], a, load_pair(start, 2 * t, 2 * u, step * 8),
                                     load_pair(start, 2 * t + 1, 2 * u, step * 8));
                }
            }
        }
    }

    template <int kTiles>
    SPION_DEVICE void multiply(float (&acc)[kHeadTiles][4], const float (&left)[kTiles][4],
                               unsigned tile, int row) {
        const int t = lane_index() % 4;
#pragma unroll 1
        for (int u = 0; u < 4; ++u) {
#pragma unroll
            for (int step = 0; step < kTiles; ++step) {
                const Fragment a = of_lane(left[step], u);
                const unsigned start = tile + (row + 8 * step) * kRowBytes;
#pragma unroll
                for (int j = 0; j < kHeadTiles; ++j) {
                    const float2 top = load_pair(start, 2 * u, 2 * t, 8 * j);
                    const float2 bottom = load_pair(start, 2 * u + 1, 2 * t, 8 * j);
                    multiply_columns(acc[j], a, make_float2(top.x, bottom.x),
                                     make_float2(top.y, bottom.y));
                }
            }
        }
    }
};

#endif
