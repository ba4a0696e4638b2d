// residual_norm_forward and residual_norm_backward.
#include <fmt/format.h>

#include "tests/kernels/train_fixture.h"
#include "tests/kernels/train_reference.h"
#include "tests/support/seed.h"

namespace spion {
namespace {

struct NormCase {
    StepShape shape;
    std::size_t rows;
    bool branch, residual, dropout, in_place;
    std::string text() const {
        return fmt::format("rows={} C={} p={} branch={} residual={} dropout={} in_place={}", rows,
                           shape.channels, shape.dropout, branch, residual, dropout, in_place);
    }
};

class TrainNorm : public StepKernelTest {
  protected:
    // Both kernels of one case; the backward pass starts from what the forward pass stored.
    void run(const NormCase& c) {
        SCOPED_TRACE(c.text());
        const auto channels = static_cast<std::size_t>(c.shape.channels);
        const std::size_t count = c.rows * channels;
        const SpionDropout dropout = random_dropout(c.dropout);
        const Values factors = dropout_factors(count, c.shape.dropout, dropout);
        const Values x = random_activations(count);
        const Values branch = c.branch ? random_activations(count) : Values{};
        const Values gamma = random_floats(channels), beta = random_floats(channels);

        const Buffer x_buffer = upload_activations(x), branch_buffer = upload_activations(branch);
        const Buffer gamma_buffer = upload_floats(gamma), beta_buffer = upload_floats(beta);
        const Buffer fresh = poisoned_activations(count), y = poisoned_activations(count);
        const Buffer mean = poisoned_floats(c.rows), rstd = poisoned_floats(c.rows);
        const Buffer& x_out = !c.branch || c.in_place ? x_buffer : fresh;
        SpionNormArguments arguments = {};
        arguments.x = x_buffer.data();
        arguments.branch = c.branch ? branch_buffer.data() : nullptr;
        arguments.x_out = c.branch ? x_out.data() : nullptr;
        arguments.gamma = gamma_buffer.as<float>();
        arguments.beta = beta_buffer.as<float>();
        arguments.y = c.branch && c.in_place ? branch_buffer.data() : y.data();
        arguments.mean = mean.as<float>();
        arguments.rstd = rstd.as<float>();
        arguments.rows = static_cast<long long>(c.rows);
        arguments.dropout = as_given(dropout);
        kernels(c.shape).residual_norm_forward(arguments);

        // The sum is held against the reference, and then what follows from it as stored.
        const Values stored = activations(x_out, count);
        const NormReference sum = norm_forward(x, branch, factors, gamma, beta, c.shape.epsilon);
        expect_near("x_out", stored, sum.x_out, activation_tolerance());
        const NormReference expected = norm_forward(stored, {}, {}, gamma, beta, c.shape.epsilon);
        const Buffer& y_out = c.branch && c.in_place ? branch_buffer : y;
        expect_near("y", activations(y_out, count), expected.y, activation_tolerance());
        expect_near("mean", floats(mean, c.rows), expected.mean, float_tolerance());
        expect_near("rstd", floats(rstd, c.rows), expected.rstd, float_tolerance());

        arguments.x_out = x_out.data();
        backward(c, arguments, stored, factors, gamma);
    }

    void backward(const NormCase& c, SpionNormArguments arguments, const Values& stored,
                  const Values& factors, const Values& gamma) {
        const auto channels = static_cast<std::size_t>(c.shape.channels);
        const std::size_t count = stored.size();
        const Values d_y = random_activations(count);
        const Values d_residual = c.residual ? random_activations(count) : Values{};
        const Buffer d_y_buffer = upload_activations(d_y);
        const Buffer d_residual_buffer = upload_activations(d_residual);
        const Buffer fresh = poisoned_activations(count), d_branch = poisoned_activations(count);
        const auto items =
            static_cast<std::size_t>(spion_row_items(static_cast<long long>(c.rows)));
        const Buffer partials = poisoned_floats(items * 3 * channels);
        const Buffer& d_x = !c.in_place ? fresh : c.residual ? d_residual_buffer : d_y_buffer;
        arguments.d_y = d_y_buffer.data();
        arguments.d_residual = c.residual ? d_residual_buffer.data() : nullptr;
        arguments.d_x = d_x.data();
        arguments.d_branch = c.branch ? d_branch.data() : nullptr;
        arguments.partials = partials.as<float>();
        kernels(c.shape).residual_norm_backward(arguments);

        const NormGradients expected =
            norm_backward(stored, factors, gamma, c.shape.epsilon, d_y, d_residual);
        expect_near("d_x", activations(d_x, count), expected.d_x, activation_tolerance());
        Values sums = expected.d_gamma;
        sums.insert(sums.end(), expected.d_beta.begin(), expected.d_beta.end());
        if (c.branch) {
            expect_near("d_branch", activations(d_branch, count), expected.d_branch,
                        activation_tolerance());
            sums.insert(sums.end(), expected.d_branch_sum.begin(), expected.d_branch_sum.end());
        } else {
            sums.resize(3 * channels, 0.0);
        }
        expect_near("d_gamma, d_beta, d_branch sums",
                    sum_rows(floats(partials, items * 3 * channels), 3 * channels), sums,
                    float_tolerance());
    }
};

TEST_F(TrainNorm, MatchesTheReferenceWithAndWithoutEachOperand) {
    for (const StepShape& shape : shapes()) {
        for (int bits = 0; bits < 16; ++bits) {
            run({.shape = shape,
                 .rows = static_cast<std::size_t>(uniform(1, 700)),
                 .branch = (bits & 1) != 0,
                 .residual = (bits & 2) != 0,
                 .dropout = (bits & 4) != 0,
                 .in_place = (bits & 8) != 0});
            if (HasFatalFailure()) return;
        }
    }
}

TEST_F(TrainNorm, WholeItemsAndOneRowMore) {
    for (const std::size_t rows : {256UL, 512UL, 513UL, 1UL}) {
        run({.shape = shapes()[1],
             .rows = rows,
             .branch = true,
             .residual = true,
             .dropout = true,
             .in_place = false});
        if (HasFatalFailure()) return;
    }
}

// Offsets that fp32 loses when the variance is computed as a difference of squares.
TEST_F(TrainNorm, KeepsTheVarianceOfRowsFarFromZero) {
    const StepShape shape = shapes()[0];
    Values x = random_activations(static_cast<std::size_t>(shape.channels) * 8);
    for (double& value : x) value = 128.0 + (value > 0.0 ? 1.0 : 0.0);
    const Values gamma(static_cast<std::size_t>(shape.channels), 1.0), beta(gamma.size(), 0.0);
    const Buffer x_buffer = upload_activations(x), y = poisoned_activations(x.size());
    const Buffer gamma_buffer = upload_floats(gamma), beta_buffer = upload_floats(beta);
    const Buffer mean = poisoned_floats(8), rstd = poisoned_floats(8);
    SpionNormArguments arguments = {};
    arguments.x = x_buffer.data();
    arguments.gamma = gamma_buffer.as<float>();
    arguments.beta = beta_buffer.as<float>();
    arguments.y = y.data();
    arguments.mean = mean.as<float>();
    arguments.rstd = rstd.as<float>();
    arguments.rows = 8;
    kernels(shape).residual_norm_forward(arguments);
    const NormReference expected = norm_forward(x, {}, {}, gamma, beta, shape.epsilon);
    expect_near("rstd", floats(rstd, 8), expected.rstd, 1e-4);
    expect_near("y", activations(y, x.size()), expected.y, on_gpu() ? 6e-3 : 1e-4);
}

TEST(TrainNormReference, BackwardIsTheDerivativeOfForward) {
    std::mt19937_64 random(test::fresh_seed());
    std::normal_distribution<double> normal;
    const std::size_t channels = 16, count = 3 * channels;
    const auto draw = [&](std::size_t n) {
        Values values(n);
        for (double& value : values) value = normal(random);
        return values;
    };
    const Values x = draw(count), branch = draw(count), gamma = draw(channels),
                 beta = draw(channels), d_y = draw(count), d_residual = draw(count);
    const Values factors =
        dropout_factors(count, 0.3, {.seed = random(), .step = 1, .stream = 2, .enabled = 1});
    const auto loss = [&](const Values& xs, const Values& bs, const Values& gs, const Values& es) {
        const NormReference out = norm_forward(xs, bs, factors, gs, es, 1e-5);
        double sum = 0.0;
        for (std::size_t i = 0; i < count; ++i) {
            sum += d_y[i] * out.y[i] + d_residual[i] * out.x_out[i];
        }
        return sum;
    };
    const NormReference out = norm_forward(x, branch, factors, gamma, beta, 1e-5);
    const NormGradients gradients = norm_backward(out.x_out, factors, gamma, 1e-5, d_y, d_residual);
    const auto of_x = [&](const Values& v) { return loss(v, branch, gamma, beta); };
    const auto of_branch = [&](const Values& v) { return loss(x, v, gamma, beta); };
    const auto of_gamma = [&](const Values& v) { return loss(x, branch, v, beta); };
    const auto of_beta = [&](const Values& v) { return loss(x, branch, gamma, v); };
    for (std::size_t i = 0; i < count; ++i) {
        EXPECT_NEAR(gradients.d_x[i], numerical_derivative(of_x, x, i), 1e-5);
        EXPECT_NEAR(gradients.d_branch[i], numerical_derivative(of_branch, branch, i), 1e-5);
    }
    for (std::size_t c = 0; c < channels; ++c) {
        EXPECT_NEAR(gradients.d_gamma[c], numerical_derivative(of_gamma, gamma, c), 1e-5);
        EXPECT_NEAR(gradients.d_beta[c], numerical_derivative(of_beta, beta, c), 1e-5);
    }
}

}  // namespace
}  // namespace spion
