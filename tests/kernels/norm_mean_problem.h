// The last norm and the mean over a sample's rows, with random operands, and what the fused kernels must make
// of them, in double.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "kernels/layer_arguments.h"
#include "train/fused_layer.h"

namespace spion {

struct NormMeanProblem {
    NormMeanProblem(const FusedLayerShape& shape, int batch, int length, bool first_only,
                    std::mt19937& random);

    FusedLayerShape shape;
    int batch, length;
    bool first_only;
    std::vector<std::uint16_t> x;         // bf16 [B, L, C], NaN past a sample's length
    std::vector<float> gamma, beta, d_y;  // [C], [C], [B, C]
    std::vector<int> lengths;             // [B]

    // Inputs filled in, outputs and rows_per_item not.
    SpionNormMeanArguments arguments() const;

    // Each fails the test unless results, NaN included, are near.
    void expect_forward(const std::vector<float>& units, const std::vector<float>& y) const;
    void expect_backward(const std::vector<std::uint16_t>& d_x,
                         const std::vector<float>& partials) const;
};

}  // namespace spion
