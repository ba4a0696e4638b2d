#include "tests/kernels/norm_mean_problem.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/kernels/linear_problem.h"
#include "tests/kernels/train_reference.h"

namespace spion {
namespace {

Values values_of(const std::vector<float>& floats) {
    return {floats.begin(), floats.end()};
}

void expect_floats_near(const char* name, const std::vector<float>& actual, const Values& expected,
                        double tolerance) {
    ASSERT_EQ(actual.size(), expected.size()) << name;
    for (std::size_t i = 0; i < actual.size(); ++i) {
        ASSERT_TRUE(std::abs(actual[i] - expected[i]) <= tolerance * (1 + std::abs(expected[i])))
            << name << "[" << i << "] is " << actual[i] << " instead of " << expected[i];
    }
}

}  // namespace

NormMeanProblem::NormMeanProblem(const FusedLayerShape& shape_, int batch_, int length_,
                                 bool first_only_, std::mt19937& random)
    : shape(shape_), batch(batch_), length(length_), first_only(first_only_) {
    const std::int64_t c = shape.channels;
    x = random_bf16(std::int64_t{batch} * length * c, 1.5, random);
    std::normal_distribution<float> normal;
    for (std::int64_t i = 0; i < c; ++i) {
        gamma.push_back(1 + 0.3F * normal(random));
        beta.push_back(0.5F * normal(random));
    }
    for (std::int64_t i = 0; i < batch * c; ++i) d_y.push_back(normal(random));
    for (int b = 0; b < batch; ++b) {
        lengths.push_back(std::uniform_int_distribution<int>(0, length)(random));
    }
    lengths.back() = length;
    for (std::size_t i = 0; i < x.size(); ++i) {
        const std::size_t row = i / static_cast<std::size_t>(c);
        const auto position = static_cast<int>(row % static_cast<std::size_t>(length));
        const int valid = first_only ? 1 : lengths[row / static_cast<std::size_t>(length)];
        if (position >= valid) x[i] = 0x7FC0;
    }
}

SpionNormMeanArguments NormMeanProblem::arguments() const {
    SpionNormMeanArguments arguments{};
    arguments.x = x.data();
    arguments.gamma = gamma.data();
    arguments.beta = beta.data();
    arguments.d_y = d_y.data();
    arguments.lengths = lengths.data();
    arguments.batch = batch;
    arguments.length = length;
    arguments.first_only = first_only ? 1 : 0;
    return arguments;
}

void NormMeanProblem::expect_forward(const std::vector<float>& units,
                                     const std::vector<float>& y) const {
    const std::size_t c = gamma.size();
    Values of_x;
    for (const std::uint16_t bits : x) of_x.push_back(bf16_value(bits));
    const Values ones(c, 1.0), zeros(c, 0.0);
    const Values unit = norm_forward(of_x, {}, {}, ones, zeros, shape.epsilon).y;
    const Values norm =
        norm_forward(of_x, {}, {}, values_of(gamma), values_of(beta), shape.epsilon).y;
    Values mean_unit(d_y.size(), 0.0), mean(d_y.size(), 0.0);
    for (std::size_t i = 0; i < x.size(); ++i) {
        if (x[i] == 0x7FC0) continue;
        const std::size_t at = i / (static_cast<std::size_t>(length) * c) * c + i % c;
        mean_unit[at] += unit[i] / (first_only ? 1 : length);
        mean[at] += norm[i] / (first_only ? 1 : length);
    }
    expect_floats_near("units", units, mean_unit, 1e-5);
    expect_floats_near("y", y, mean, 1e-5);
}

void NormMeanProblem::expect_backward(const std::vector<std::uint16_t>& d_x,
                                      const std::vector<float>& partials) const {
    const std::size_t c = gamma.size();
    Values of_x, d_norm(x.size(), 0.0);
    for (std::size_t i = 0; i < x.size(); ++i) {
        const bool counts = x[i] != 0x7FC0;
        of_x.push_back(counts ? bf16_value(x[i]) : 0.0);
        const std::size_t at = i / (static_cast<std::size_t>(length) * c) * c + i % c;
        if (counts) d_norm[i] = double{d_y[at]} / (first_only ? 1 : length);
    }
    const NormGradients expected =
        norm_backward(of_x, Values(x.size(), 1.0), values_of(gamma), shape.epsilon, d_norm, {});
    expect_values_near("d_x", d_x, expected.d_x, 6e-3);
    std::vector<float> sums(2 * c, 0.0F);
    for (std::size_t i = 0; i < partials.size(); ++i) sums[i % (2 * c)] += partials[i];
    Values both = expected.d_gamma;
    both.insert(both.end(), expected.d_beta.begin(), expected.d_beta.end());
    expect_floats_near("d_gamma and d_beta", sums, both, 1e-4);
}

}  // namespace spion
