#include "tests/kernels/feed_forward_problem.h"

#include <gtest/gtest.h>

#include "tests/kernels/linear_problem.h"

namespace spion {
namespace {

// x [N, in], weight [out, in], bias [out] -> [N, out].
Values linear(const std::vector<std::uint16_t>& x, const std::vector<std::uint16_t>& weight,
              const std::vector<float>& bias) {
    const std::size_t out = bias.size(), in = weight.size() / out, rows = x.size() / in;
    Values y(rows * out);
    for (std::size_t n = 0; n < rows; ++n) {
        for (std::size_t o = 0; o < out; ++o) {
            double sum = bias[o];
            for (std::size_t i = 0; i < in; ++i) {
                sum += bf16_value(x[n * in + i]) * bf16_value(weight[o * in + i]);
            }
            y[n * out + o] = sum;
        }
    }
    return y;
}

}  // namespace

FeedForwardProblem::FeedForwardProblem(const FusedFeedForwardShape& shape_, std::int64_t rows_,
                                       bool dropout_enabled, std::mt19937& random)
    : shape(shape_), rows(rows_) {
    x = random_bf16(rows * shape.channels, 1.0, random);
    weight1 = random_bf16(shape.channels * shape.hidden, 0.2, random);
    weight2 = random_bf16(shape.channels * shape.hidden, 0.2, random);
    std::normal_distribution<float> normal;
    bias1.resize(static_cast<std::size_t>(shape.hidden));
    bias2.resize(static_cast<std::size_t>(shape.channels));
    for (auto* bias : {&bias1, &bias2}) {
        for (float& value : *bias) value = normal(random);
    }
    dropout = {.seed = random(),
               .step = static_cast<unsigned>(random()),
               .stream = static_cast<unsigned>(random()),
               .enabled = dropout_enabled ? 1 : 0};
}

void FeedForwardProblem::expect(const std::vector<std::uint16_t>& hidden,
                                const std::vector<std::uint16_t>& gated,
                                const std::vector<std::uint16_t>& y) const {
    const Values factors = dropout_factors(hidden.size(), shape.dropout, dropout);
    Values expected_gated(hidden.size());
    for (std::size_t i = 0; i < hidden.size(); ++i) {
        expected_gated[i] = gelu(bf16_value(hidden[i])) * factors[i];
    }
    expect_values_near("hidden", hidden, linear(x, weight1, bias1), 5e-3);
    expect_values_near("gated", gated, expected_gated, 5e-3);
    expect_values_near("y", y, linear(gated, weight2, bias2), 5e-3);
}

}  // namespace spion
