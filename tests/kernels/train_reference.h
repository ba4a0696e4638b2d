// Float64 references of the training step's kernels, written from the formulas in
// kernels/train_arguments.h and sharing nothing with the kernels but the random bits.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/train_arguments.h"

namespace spion {

using Values = std::vector<double>;

// The factor of each of `count` elements: 0, or 1 / (1 - probability); ones when it is off.
Values dropout_factors(std::size_t count, double probability, const SpionDropout& dropout);

struct NormReference {
    Values x_out, y, mean, rstd;  // [N, C] twice, [N] twice
};
// branch: [N, C] or empty; factors: of the branch.
NormReference norm_forward(const Values& x, const Values& branch, const Values& factors,
                           const Values& gamma, const Values& beta, double epsilon);

struct NormGradients {
    Values d_x, d_branch;                  // [N, C]
    Values d_gamma, d_beta, d_branch_sum;  // [C]
};
// x_out: what the norm saw; d_residual: [N, C] or empty.
NormGradients norm_backward(const Values& x_out, const Values& factors, const Values& gamma,
                            double epsilon, const Values& d_y, const Values& d_residual);

double gelu(double x);
double gelu_derivative(double x);

struct Head {
    int channels, hidden, classes;
    Values w1, b1, w2, b2;
};
struct HeadResult {
    Values hidden, losses;     // [B, hidden], [B]
    std::vector<int> correct;  // [B]
    Values d_hidden, d_logits, d_pooled;
    Values d_w1, d_b1, d_w2, d_b2;
};
HeadResult run_head(const Head& head, const Values& pooled, const std::vector<int>& labels);

// d loss / d point[i] by central differences.
double numerical_derivative(const std::function<double(const Values&)>& loss, Values point,
                            std::size_t i);

}  // namespace spion
