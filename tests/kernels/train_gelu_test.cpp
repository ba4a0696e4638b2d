// gelu_dropout_forward and gelu_dropout_backward.
#include <fmt/format.h>

#include <cmath>

#include "tests/kernels/train_fixture.h"
#include "tests/kernels/train_reference.h"

namespace spion {
namespace {

class TrainGelu : public StepKernelTest {
  protected:
    void run(const StepShape& shape, std::size_t rows, bool enabled, bool in_place) {
        SCOPED_TRACE(fmt::format("rows={} F={} p={} enabled={} in_place={}", rows,
                                 shape.feed_forward, shape.dropout, enabled, in_place));
        const auto width = static_cast<std::size_t>(shape.feed_forward);
        const std::size_t count = rows * width;
        Values x = random_activations(count);
        // The whole range of x, far tails included.
        for (std::size_t i = 0; i < count; i += 3) x[i] *= 8.0;
        const Values d_y = random_activations(count);
        const SpionDropout dropout = random_dropout(enabled);
        const Values factors = dropout_factors(count, shape.dropout, dropout);
        const auto items = static_cast<std::size_t>(spion_row_items(static_cast<long long>(rows)));

        const Buffer x_buffer = upload_activations(x), d_y_buffer = upload_activations(d_y);
        const Buffer y = poisoned_activations(count), fresh = poisoned_activations(count);
        const Buffer partials = poisoned_floats(items * width);
        const Buffer& d_x = in_place ? d_y_buffer : fresh;
        SpionGeluArguments arguments = {};
        arguments.x = x_buffer.data();
        arguments.y = y.data();
        arguments.d_y = d_y_buffer.data();
        arguments.d_x = d_x.data();
        arguments.d_bias_partials = partials.as<float>();
        arguments.rows = static_cast<long long>(rows);
        arguments.dropout = as_given(dropout);
        kernels(shape).gelu_dropout_forward(arguments);
        kernels(shape).gelu_dropout_backward(arguments);

        Values expected_y(count), expected_d_x(count);
        for (std::size_t i = 0; i < count; ++i) {
            expected_y[i] = gelu(x[i]) * factors[i];
            expected_d_x[i] = gelu_derivative(x[i]) * d_y[i] * factors[i];
        }
        expect_near("y", activations(y, count), expected_y, activation_tolerance());
        expect_near("d_x", activations(d_x, count), expected_d_x, activation_tolerance());
        expect_near("d_bias", sum_rows(floats(partials, items * width), width),
                    sum_rows(expected_d_x, width), float_tolerance());
    }
};

TEST_F(TrainGelu, MatchesTheReference) {
    for (const StepShape& shape : shapes()) {
        for (const bool enabled : {false, true}) {
            run(shape, static_cast<std::size_t>(uniform(1, 600)), enabled, !enabled);
            run(shape, 256, enabled, enabled);
            if (HasFatalFailure()) return;
        }
    }
}

// fp32 accuracy, relative to the value itself, where the host's polynomial must do without libm.
TEST_F(TrainGelu, IsAccurateEverywhere) {
    const StepShape shape = shapes()[0];
    const auto width = static_cast<std::size_t>(shape.feed_forward);
    const std::size_t rows = 100, count = rows * width;
    Values x(count);
    for (std::size_t i = 0; i < count; ++i) {
        x[i] = -6.0 + 12.0 * static_cast<double>(i) / static_cast<double>(count);
        if (on_gpu()) x[i] = std::round(x[i] * 16.0) / 16.0;  // exact in bf16
        x[i] = static_cast<float>(x[i]);
    }
    const Buffer x_buffer = upload_activations(x), y = poisoned_activations(count);
    SpionGeluArguments arguments = {};
    arguments.x = x_buffer.data();
    arguments.y = y.data();
    arguments.rows = static_cast<long long>(rows);
    kernels(shape).gelu_dropout_forward(arguments);
    const Values actual = activations(y, count);
    const double relative = on_gpu() ? 4e-3 : 2e-6, absolute = on_gpu() ? 1e-6 : 2e-7;
    for (std::size_t i = 0; i < count; ++i) {
        ASSERT_NEAR(actual[i], gelu(x[i]), relative * std::abs(gelu(x[i])) + absolute)
            << "gelu(" << x[i] << ")";
    }
}

TEST(TrainGeluReference, DerivativeIsTheDerivative) {
    const auto of_first = [](const Values& x) { return gelu(x[0]); };
    for (double x = -5.0; x < 5.0; x += 0.37) {
        EXPECT_NEAR(gelu_derivative(x), numerical_derivative(of_first, {x}, 0), 1e-8);
    }
}

}  // namespace
}  // namespace spion
