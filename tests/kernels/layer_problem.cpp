#include "tests/kernels/layer_problem.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/kernels/linear_problem.h"

namespace spion {
namespace {

Values values_of(const std::vector<std::uint16_t>& bits) {
    Values values;
    for (const std::uint16_t one : bits) values.push_back(bf16_value(one));
    return values;
}
Values values_of(const std::vector<float>& floats) {
    return {floats.begin(), floats.end()};
}
Values rounded(Values values) {
    for (double& value : values) value = bf16_value(bf16_bits(value));
    return values;
}

// x [N, in], weight [out, in] -> x W^T [N, out].
Values by_rows(const Values& x, const Values& weight, std::size_t in) {
    const std::size_t out = weight.size() / in, rows = x.size() / in;
    Values y(rows * out, 0.0);
    for (std::size_t n = 0; n < rows; ++n) {
        for (std::size_t o = 0; o < out; ++o) {
            for (std::size_t i = 0; i < in; ++i)
                y[n * out + o] += x[n * in + i] * weight[o * in + i];
        }
    }
    return y;
}
// How far a value may move by being rounded where it lies so near a tie of bf16 that a kernel, whose value
// may be `near` away, may round it to its other side: 0 where there is no tie.
double tie(double value, double near) {
    return bf16_value(bf16_bits(value + near)) - bf16_value(bf16_bits(value - near));
}
Values absolute(Values values) {
    for (double& value : values) value = std::abs(value);
    return values;
}
// How far x W^T may move for such values of x, which a kernel has in fp32.
Values moved_by_ties(const Values& x, const Values& weight, std::size_t in) {
    Values units;
    for (const double value : x) units.push_back(tie(value, 1e-6 * (1 + std::abs(value))));
    return by_rows(units, absolute(weight), in);
}
// x [N, out], weight [out, in] -> x W [N, in].
Values by_columns(const Values& x, const Values& weight, std::size_t in) {
    const std::size_t out = weight.size() / in, rows = x.size() / out;
    Values y(rows * in, 0.0);
    for (std::size_t n = 0; n < rows; ++n) {
        for (std::size_t o = 0; o < out; ++o) {
            for (std::size_t i = 0; i < in; ++i)
                y[n * in + i] += x[n * out + o] * weight[o * in + i];
        }
    }
    return y;
}
// d [N, out], x [N, in] -> d^T x [out, in].
Values weight_gradient(const Values& d, const Values& x, std::size_t in, std::size_t out) {
    Values result(out * in, 0.0);
    for (std::size_t n = 0; n < x.size() / in; ++n) {
        for (std::size_t o = 0; o < out; ++o) {
            for (std::size_t i = 0; i < in; ++i) {
                result[o * in + i] += d[n * out + o] * x[n * in + i];
            }
        }
    }
    return result;
}
Values column_sums(const Values& x, std::size_t width) {
    Values sums(width, 0.0);
    for (std::size_t i = 0; i < x.size(); ++i) sums[i % width] += x[i];
    return sums;
}
// Column sums of the products.
Values column_sums(Values x, const Values& y, std::size_t width) {
    for (std::size_t i = 0; i < x.size(); ++i) x[i] *= y[i];
    return column_sums(x, width);
}
void add_to_rows(Values& y, const std::vector<float>& bias) {
    for (std::size_t i = 0; i < y.size(); ++i) y[i] += bias[i % bias.size()];
}

// Sums of the partial rows, piece by piece: each within tolerance of its own size.
void expect_partials(const std::vector<float>& partials,
                     const std::vector<std::pair<const char*, Values>>& pieces, double tolerance) {
    std::size_t stride = 0, first = 0;
    for (const auto& [name, expected] : pieces) stride += expected.size();
    ASSERT_EQ(partials.size() % stride, 0U);
    for (const auto& [name, expected] : pieces) {
        double squares = 0;
        for (const double value : expected) squares += value * value;
        const double scale = std::sqrt(squares / static_cast<double>(expected.size()));
        for (std::size_t i = 0; i < expected.size(); ++i) {
            double sum = 0;
            for (std::size_t at = first + i; at < partials.size(); at += stride)
                sum += partials[at];
            ASSERT_TRUE(std::abs(sum - expected[i]) <= tolerance * (std::abs(expected[i]) + scale))
                << name << "[" << i << "] is " << sum << " instead of " << expected[i];
        }
        first += expected.size();
    }
}

void expect_statistics(const std::vector<float>& mean, const std::vector<float>& rstd,
                       const NormReference& expected) {
    ASSERT_EQ(mean.size(), expected.mean.size());
    for (std::size_t n = 0; n < mean.size(); ++n) {
        ASSERT_TRUE(std::abs(mean[n] - expected.mean[n]) <= 1e-5) << n;
        ASSERT_TRUE(std::abs(rstd[n] - expected.rstd[n]) <= 1e-5 * expected.rstd[n]) << n;
    }
}

std::vector<float> random_floats(int count, double around, double spread, std::mt19937& random) {
    std::normal_distribution<double> normal(around, spread);
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = static_cast<float>(normal(random));
    return values;
}

}  // namespace

LayerProblem::LayerProblem(const FusedLayerShape& shape_, std::int64_t rows_, bool dropout_enabled,
                           std::mt19937& random)
    : shape(shape_), rows(rows_) {
    const int c = shape.channels, f = shape.hidden;
    x = random_bf16(rows * c, 1.5, random);
    o = random_bf16(rows * c, 1.0, random);
    d_x = random_bf16(rows * c, 1.0, random);
    d_y = random_bf16(rows * 3 * c, 1.0, random);
    qkv_weight = random_bf16(3 * c * c, 0.2, random);
    out_weight = random_bf16(c * c, 0.2, random);
    weight1 = random_bf16(f * c, 0.2, random);
    weight2 = random_bf16(c * f, 0.2, random);
    gamma = random_floats(c, 1.0, 0.3, random);
    beta = random_floats(c, 0.0, 0.5, random);
    qkv_bias = random_floats(3 * c, 0.0, 1.0, random);
    out_bias = random_floats(c, 0.0, 1.0, random);
    bias1 = random_floats(f, 0.0, 1.0, random);
    bias2 = random_floats(c, 0.0, 1.0, random);
    const NormReference norm =
        norm_forward(values_of(x), {}, {}, values_of(gamma), values_of(beta), shape.epsilon);
    mean = {norm.mean.begin(), norm.mean.end()};
    rstd = {norm.rstd.begin(), norm.rstd.end()};
    dropout = {.seed = random(),
               .step = static_cast<unsigned>(random()),
               .stream = static_cast<unsigned>(random()),
               .enabled = dropout_enabled ? 1 : 0};
    out_stream = static_cast<unsigned>(random());
    gelu_stream = static_cast<unsigned>(random());
    branch_stream = static_cast<unsigned>(random());
    if (shape.dropout > 0) {
        kept.assign(static_cast<std::size_t>(fused_layer_kept(shape, rows)), ~0U);
        keep(c, out_stream, 0);
        keep(c, branch_stream, 1);
        keep(f, gelu_stream, 2);
    }
}

// Clears the bits of what the dropout of a tensor [N, width] drops, in words from `first_word` of those
// that every tile of 16 rows has: kernels/layer_arguments.h has the places.
void LayerProblem::keep(std::int64_t width, unsigned stream, std::int64_t first_word) {
    const Values factor = factors(width, stream);
    const std::int64_t words = spion_kept_words(shape.channels, shape.hidden);
    for (std::int64_t row = 0; row < rows; ++row) {
        for (std::int64_t column = 0; column < width; ++column) {
            if (factor[static_cast<std::size_t>(row * width + column)] != 0) continue;
            const std::int64_t tile = row / 16, lane = row % 8 * 4 + column % 32 / 8;
            const std::int64_t group = column / 32, element = column % 8;
            const std::int64_t word = first_word + group / 2;
            const std::int64_t bit =
                group % 2 * 8 + row % 16 / 8 * 4 + element / 2 + element % 2 * 16;
            kept[static_cast<std::size_t>((tile * words + word) * 32 + lane)] &= ~(1U << bit);
        }
    }
}

SpionNormLinearArguments LayerProblem::norm_linear() const {
    SpionNormLinearArguments arguments{};
    arguments.x = x.data();
    arguments.gamma = gamma.data();
    arguments.beta = beta.data();
    arguments.weight = qkv_weight.data();
    arguments.bias = qkv_bias.data();
    arguments.d_y = d_y.data();
    arguments.rows = rows;
    arguments.draws = spion_draws(dropout, shape.dropout);
    arguments.out_stream = out_stream;
    arguments.gelu_stream = gelu_stream;
    arguments.branch_stream = branch_stream;
    return arguments;
}

SpionLayerEndArguments LayerProblem::layer_end() const {
    SpionLayerEndArguments arguments{};
    arguments.o = o.data();
    arguments.x = x.data();
    arguments.out_weight = out_weight.data();
    arguments.out_bias = out_bias.data();
    arguments.gamma = gamma.data();
    arguments.beta = beta.data();
    arguments.weight1 = weight1.data();
    arguments.bias1 = bias1.data();
    arguments.weight2 = weight2.data();
    arguments.bias2 = bias2.data();
    arguments.rows = rows;
    arguments.kept = kept.data();
    arguments.scale = spion_draws(dropout, shape.dropout).scale;
    return arguments;
}

Values LayerProblem::units() const {
    return rounded(norm_forward(values_of(x), {}, {}, Values(gamma.size(), 1.0),
                                Values(gamma.size(), 0.0), shape.epsilon)
                       .y);
}
Values LayerProblem::scaled(Values units) const {
    for (std::size_t i = 0; i < units.size(); ++i) {
        units[i] = units[i] * gamma[i % gamma.size()] + beta[i % beta.size()];
    }
    return units;
}

Values LayerProblem::factors(std::int64_t width, unsigned stream) const {
    SpionDropout drawn = dropout;
    drawn.stream = stream;
    return dropout_factors(static_cast<std::size_t>(rows * width), shape.dropout, drawn);
}

void LayerProblem::expect_norm_linear(const std::vector<std::uint16_t>& y,
                                      const std::vector<float>& row_mean,
                                      const std::vector<float>& row_rstd,
                                      const std::vector<unsigned>& new_kept) const {
    expect_kept(new_kept);
    const NormReference norm =
        norm_forward(values_of(x), {}, {}, values_of(gamma), values_of(beta), shape.epsilon);
    expect_statistics(row_mean, row_rstd, norm);
    Values expected = by_rows(rounded(norm.y), values_of(qkv_weight), gamma.size());
    add_to_rows(expected, qkv_bias);
    expect_values_near("y", y, expected, 6e-3,
                       moved_by_ties(norm.y, values_of(qkv_weight), gamma.size()));
}

void LayerProblem::expect_norm_linear_gradients(const std::vector<std::uint16_t>& new_d_x,
                                                const std::vector<float>& partials) const {
    const std::size_t c = gamma.size();
    const Values gradient = values_of(d_y);
    const Values d_normed = by_columns(gradient, values_of(qkv_weight), c);
    const NormGradients through =
        norm_backward(values_of(x), Values(x.size(), 1.0), values_of(gamma), shape.epsilon,
                      d_normed, values_of(d_x));
    expect_values_near("d_x", new_d_x, through.d_x, 6e-3);
    expect_partials(partials,
                    {{"d_W", weight_gradient(gradient, scaled(units()), c, 3 * c)},
                     {"d_b", column_sums(gradient, 3 * c)},
                     {"d_gamma", column_sums(d_normed, units(), c)},
                     {"d_beta", through.d_beta}},
                    3e-3);
}

void LayerProblem::expect_kept(const std::vector<unsigned>& new_kept) const {
    ASSERT_EQ(new_kept.size(), kept.size());
    const std::int64_t words = spion_kept_words(shape.channels, shape.hidden);
    for (std::size_t i = 0; i < kept.size(); ++i) {
        const auto at = static_cast<std::int64_t>(i);
        const std::int64_t row = at / (words * 32) * 16 + at % 32 / 4;
        // The rows of a word's octets lie 8 apart; those past N are anybody's.
        const unsigned there =
            (row < rows ? 0x0F0F0F0FU : 0U) | (row + 8 < rows ? 0xF0F0F0F0U : 0U);
        ASSERT_EQ(new_kept[i] & there, kept[i] & there) << "word " << i;
    }
}

void LayerProblem::expect_layer_end(const std::vector<std::uint16_t>& x_middle,
                                    const std::vector<std::uint16_t>& x_out,
                                    const std::vector<float>& row_mean,
                                    const std::vector<float>& row_rstd) const {
    const std::size_t c = gamma.size();
    const auto f = static_cast<std::int64_t>(bias1.size());
    Values middle = by_rows(values_of(o), values_of(out_weight), c);
    add_to_rows(middle, out_bias);
    const Values out_factors = factors(shape.channels, out_stream);
    for (std::size_t i = 0; i < middle.size(); ++i) {
        middle[i] = bf16_value(x[i]) + middle[i] * out_factors[i];
    }
    expect_values_near("x_middle", x_middle, middle, 6e-3);
    // What follows is held against what was stored.
    const NormReference norm =
        norm_forward(values_of(x_middle), {}, {}, values_of(gamma), values_of(beta), shape.epsilon);
    expect_statistics(row_mean, row_rstd, norm);
    Values hidden = by_rows(rounded(norm.y), values_of(weight1), c);
    add_to_rows(hidden, bias1);
    const Values gelu_factors = factors(f, gelu_stream);
    Values gated = hidden;  // rounded before what dropout keeps is scaled
    for (double& value : gated) value = gelu(value);
    gated = rounded(gated);
    for (std::size_t i = 0; i < gated.size(); ++i) gated[i] *= gelu_factors[i];
    Values expected = by_rows(gated, values_of(weight2), bias1.size());
    add_to_rows(expected, bias2);
    const Values branch_factors = factors(shape.channels, branch_stream);
    for (std::size_t i = 0; i < expected.size(); ++i) {
        expected[i] = bf16_value(x_middle[i]) + expected[i] * branch_factors[i];
    }
    expect_values_near("x_out", x_out, expected, 8e-3);
}

// How far the gradient of the norm's input moves, at most, where that of its output moves by `moved`.
Values LayerProblem::moved_by_norm(Values moved) const {
    const std::size_t c = gamma.size();
    const Values unit = absolute(units());
    for (std::size_t row = 0; row < moved.size(); row += c) {
        double sum = 0, product = 0;
        for (std::size_t i = 0; i < c; ++i) {
            moved[row + i] *= std::abs(gamma[i]);
            sum += moved[row + i];
            product += moved[row + i] * unit[row + i];
        }
        for (std::size_t i = 0; i < c; ++i) {
            const double others = (sum + unit[row + i] * product) / static_cast<double>(c);
            moved[row + i] = (moved[row + i] + others) * rstd[row / c];
        }
    }
    return moved;
}

void LayerProblem::expect_layer_end_gradients(const std::vector<std::uint16_t>& new_d_x,
                                              const std::vector<std::uint16_t>& d_branch,
                                              const std::vector<float>& partials) const {
    const std::size_t c = gamma.size(), f = bias1.size();
    const NormReference norm =
        norm_forward(values_of(x), {}, {}, values_of(gamma), values_of(beta), shape.epsilon);
    const Values normed = rounded(norm.y);
    Values d_out = values_of(d_x);
    const Values branch_factors = factors(shape.channels, branch_stream);
    for (std::size_t i = 0; i < d_out.size(); ++i) d_out[i] *= branch_factors[i];
    d_out = rounded(d_out);
    Values hidden = by_rows(normed, values_of(weight1), c);
    add_to_rows(hidden, bias1);
    Values d_hidden = by_columns(d_out, values_of(weight2), f), gated = hidden, ties;
    const Values gelu_factors = factors(static_cast<std::int64_t>(f), gelu_stream);
    for (std::size_t i = 0; i < hidden.size(); ++i) {
        gated[i] = gelu(hidden[i]) * gelu_factors[i];
        const double d_gated = d_hidden[i] * gelu_factors[i];
        d_hidden[i] = d_gated * gelu_derivative(hidden[i]);
        ties.push_back(tie(d_hidden[i], 3e-5 * std::abs(d_gated)));  // the kernel's gelu'
    }
    d_hidden = rounded(d_hidden);
    const Values d_normed = by_columns(d_hidden, values_of(weight1), c);
    const NormGradients through =
        norm_backward(values_of(x), factors(shape.channels, out_stream), values_of(gamma),
                      shape.epsilon, d_normed, values_of(d_x));
    const Values moved = moved_by_norm(by_columns(ties, absolute(values_of(weight1)), c));
    Values moved_branch = moved;
    const Values out_factors = factors(shape.channels, out_stream);
    for (std::size_t i = 0; i < moved.size(); ++i) moved_branch[i] *= out_factors[i];
    expect_values_near("d_x", new_d_x, through.d_x, 1e-2, moved);
    expect_values_near("d_branch", d_branch, through.d_branch, 1e-2, moved_branch);
    expect_partials(partials,
                    {{"d_W1", weight_gradient(d_hidden, scaled(units()), c, f)},
                     {"d_b1", column_sums(d_hidden, f)},
                     {"d_W2", weight_gradient(d_out, rounded(gated), f, c)},
                     {"d_b2", column_sums(d_out, c)},
                     {"d_gamma", column_sums(d_normed, units(), c)},
                     {"d_beta", through.d_beta}},
                    1e-2);
}

}  // namespace spion
