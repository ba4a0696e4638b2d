#include "tests/kernels/linear_problem.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>

namespace spion {
namespace {

void expect_near(const char* name, const Values& actual, const Values& expected, double tolerance,
                 const Values& more = {}) {
    ASSERT_EQ(actual.size(), expected.size()) << name;
    double squares = 0;
    for (const double value : expected) squares += value * value;
    const double scale = std::sqrt(squares / static_cast<double>(expected.size()));
    for (std::size_t i = 0; i < actual.size(); ++i) {
        ASSERT_TRUE(std::abs(actual[i] - expected[i]) <=
                    tolerance * (std::abs(expected[i]) + scale) + (more.empty() ? 0 : more[i]))
            << name << "[" << i << "] is " << actual[i] << " instead of " << expected[i];
    }
}

}  // namespace

std::vector<std::uint16_t> random_bf16(std::int64_t count, double spread, std::mt19937& random) {
    std::normal_distribution<double> normal(0.0, spread);
    std::vector<std::uint16_t> values(static_cast<std::size_t>(count));
    for (std::uint16_t& value : values) value = bf16_bits(normal(random));
    return values;
}

void expect_values_near(const char* name, const std::vector<std::uint16_t>& actual,
                        const Values& expected, double tolerance, const Values& more) {
    Values values;
    for (const std::uint16_t bits : actual) values.push_back(bf16_value(bits));
    expect_near(name, values, expected, tolerance, more);
}

// To nearest, ties to even.
std::uint16_t bf16_bits(double value) {
    const auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(value));
    return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);
}

double bf16_value(std::uint16_t bits) {
    return std::bit_cast<float>(std::uint32_t{bits} << 16);
}

LinearProblem::LinearProblem(const FusedLinearShape& shape_, std::int64_t rows_,
                             bool dropout_enabled, std::mt19937& random)
    : shape(shape_), rows(rows_) {
    const auto out = static_cast<std::size_t>(shape.out), in = static_cast<std::size_t>(shape.in);
    d_y = random_bf16(rows * shape.out, 1.0, random);
    hidden = random_bf16(rows * shape.out, 1.5, random);
    x = random_bf16(rows * shape.in, 1.0, random);
    weight = random_bf16(shape.out * shape.in, 0.2, random);
    dropout = {.seed = random(),
               .step = static_cast<unsigned>(random()),
               .stream = static_cast<unsigned>(random()),
               .enabled = dropout_enabled ? 1 : 0};
    const Values factors =
        shape.gelu ? dropout_factors(d_y.size(), shape.dropout, dropout) : Values(d_y.size(), 1.0);
    d_x.assign(static_cast<std::size_t>(rows) * in, 0.0);
    partials.assign(out * in + out, 0.0);
    for (std::size_t n = 0; n < static_cast<std::size_t>(rows); ++n) {
        for (std::size_t o = 0; o < out; ++o) {
            double gradient = bf16_value(d_y[n * out + o]) * factors[n * out + o];
            if (shape.gelu) {  // stored before the products, so rounded
                gradient *= gelu_derivative(bf16_value(hidden[n * out + o]));
                gradient = bf16_value(bf16_bits(gradient));
            }
            for (std::size_t i = 0; i < in; ++i) {
                d_x[n * in + i] += gradient * bf16_value(weight[o * in + i]);
                partials[o * in + i] += gradient * bf16_value(x[n * in + i]);
            }
            partials[out * in + o] += gradient;
        }
    }
}

void LinearProblem::expect(const std::vector<std::uint16_t>& actual_d_x,
                           const std::vector<float>& actual_partials) const {
    Values sums(partials.size(), 0.0);
    ASSERT_EQ(actual_partials.size() % sums.size(), 0U);
    for (std::size_t i = 0; i < actual_partials.size(); ++i) {
        sums[i % sums.size()] += actual_partials[i];
    }
    expect_values_near("d_x", actual_d_x, d_x, 6e-3);
    // Behind gelu, a gradient between two bf16 numbers may be rounded the other way, and be wrong by
    // up to 2^-7 of it; of a sum over one row that is all there is.
    expect_near("d_W and d_b", sums, partials, shape.gelu ? 8e-3 : 2e-5);
}

}  // namespace spion
