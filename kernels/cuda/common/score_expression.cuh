// A user's expression of scores (ir/score_expression.h), for all CUDA bodies. The generated text has
// it as ScoreExpression, ahead of the body, with SPION_SCORE_EXPRESSION (codegen/cuda/score_cuda.cpp).
#ifndef SPION_SCORE_EXPRESSION_CUH
#define SPION_SCORE_EXPRESSION_CUH

#include "kernels/cuda/common/contract.cuh"
#include "kernels/cuda/common/ptx.cuh"
#include "kernels/cuda/common/score.cuh"
#include "kernels/cuda/common/tile.cuh"

#ifndef SPION_SCORE_EXPRESSION
struct ScoreExpression {};
#endif

// Its functions, relative errors about 2^-22, of tanh as a cap has it.
struct ScoreFunctions {
    __device__ __forceinline__ static float tanh(float x) { return capped(x); }
    __device__ __forceinline__ static float exp(float x) { return ex2_approx(x * kLog2E); }
    __device__ __forceinline__ static float log(float x) { return lg2_approx(x) * kLn2; }
    __device__ __forceinline__ static float sqrt(float x) { return sqrt_approx(x); }
    __device__ __forceinline__ static float sigmoid(float x) {
        return rcp_approx(1.0F + ex2_approx(x * -kLog2E));
    }
    __device__ __forceinline__ static float divide(float a, float b) { return a * rcp_approx(b); }
};

// Where nobody asks for slopes, in the forward pass.
struct NoSlopes {
    __device__ __forceinline__ void set(int, int, float) {}
};

// Raw scores [16, 8 * kTiles] of a head go through the expression, their derivatives to `slopes`;
// warp_row: position of the first row; position_of(n): of the first of columns [16 n, + 16). Scores of
// positions that do not exist are masked: nobody says what the expression is there.
template <bool kRowsAreKeys, int kTiles, typename Slopes, typename PositionOf,
          typename Expression = ScoreExpression>
SPION_DEVICE void express_scores(float (&scores)[kTiles][4], Slopes& slopes, const HeadScores& of,
                                 int warp_row, const PositionOf& position_of) {
    if constexpr (kExpression) {
        constexpr int kRows = kRowsAreKeys ? kKeyLength : kLength;
        constexpr int kColumnsThere = kRowsAreKeys ? kLength : kKeyLength;
        const int first_row = warp_row + lane_index() / 4;
#pragma unroll
        for (int n = 0; n < kTiles / 2; ++n) {
            const int first_column = position_of(n) + lane_index() % 4 * 2;
#pragma unroll
            for (int j = 2 * n; j < 2 * n + 2; ++j) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int row = first_row + i / 2 * 8;
                    const int column = first_column + j % 2 * 8 + i % 2;
                    float changed, slope;
                    Expression::template change<ScoreFunctions>(
                        scores[j][i] * kScale, (float)(kRowsAreKeys ? column : row),
                        (float)(kRowsAreKeys ? row : column), (float)of.head, (float)of.batch,
                        changed, slope);
                    const bool exists = row < kRows && column < kColumnsThere;
                    scores[j][i] = exists ? changed * (1.0F / kScale) : kMaskedScore;
                    slopes.set(j, i, slope);
                }
            }
        }
    }
}

#endif
