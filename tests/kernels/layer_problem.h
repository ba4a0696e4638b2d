// The rows of an encoder layer beside attention, with random operands in bf16, and what the fused
// kernels must make of them, in double.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "kernels/layer_arguments.h"
#include "tests/kernels/train_reference.h"
#include "train/fused_layer.h"

namespace spion {

struct LayerProblem {
    LayerProblem(const FusedLayerShape& shape, std::int64_t rows, bool dropout_enabled,
                 std::mt19937& random);

    FusedLayerShape shape;
    std::int64_t rows;
    // bf16: [N, C] thrice, [N, 3C], [3C, C], [C, C], [F, C], [C, F].
    std::vector<std::uint16_t> x, o, d_x, d_y, qkv_weight, out_weight, weight1, weight2;
    std::vector<float> gamma, beta, qkv_bias, out_bias, bias1,
        bias2;                      // [C], [C], [3C], [C], [F], [C]
    std::vector<float> mean, rstd;  // [N] of x
    SpionDropout dropout;
    unsigned out_stream, gelu_stream, branch_stream;
    // What the dropouts keep, from the reference's factors; all of a last tile's rows past N.
    std::vector<unsigned> kept;

    // Inputs filled in, outputs and rows_per_item not. layer_end_backward takes x for x_middle.
    SpionNormLinearArguments norm_linear() const;
    SpionLayerEndArguments layer_end() const;

    // Each fails the test unless results, NaN included, are near. Partials: [items, one row].
    void expect_norm_linear(const std::vector<std::uint16_t>& y, const std::vector<float>& row_mean,
                            const std::vector<float>& row_rstd,
                            const std::vector<unsigned>& new_kept) const;
    void expect_norm_linear_gradients(const std::vector<std::uint16_t>& new_d_x,
                                      const std::vector<float>& partials) const;
    void expect_layer_end(const std::vector<std::uint16_t>& x_middle,
                          const std::vector<std::uint16_t>& x_out,
                          const std::vector<float>& row_mean,
                          const std::vector<float>& row_rstd) const;
    void expect_layer_end_gradients(const std::vector<std::uint16_t>& new_d_x,
                                    const std::vector<std::uint16_t>& d_branch,
                                    const std::vector<float>& partials) const;

  private:
    // What the weights' gradients are made from: [N, C] of unit mean and variance, in bf16; and what the
    // norm makes of it.
    Values units() const;
    Values moved_by_norm(Values moved) const;
    Values scaled(Values units) const;
    void expect_kept(const std::vector<unsigned>& new_kept) const;
    Values factors(std::int64_t width, unsigned stream) const;
    void keep(std::int64_t width, unsigned stream, std::int64_t first_word);
};

}  // namespace spion
