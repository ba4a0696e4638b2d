// masked_mean_forward and masked_mean_backward.
#include <fmt/format.h>

#include <limits>

#include "tests/kernels/train_fixture.h"

namespace spion {
namespace {

class TrainPool : public StepKernelTest {
  protected:
    void run(const StepShape& shape, std::size_t batch, std::size_t length, bool first_only) {
        SCOPED_TRACE(fmt::format("B={} L={} C={}{}", batch, length, shape.channels,
                                 first_only ? ", the first row only" : ""));
        const auto channels = static_cast<std::size_t>(shape.channels);
        std::vector<int> lengths(batch);
        for (int& valid : lengths) valid = uniform(0, static_cast<int>(length));
        lengths.back() = static_cast<int>(length);
        Values x = random_activations(batch * length * channels);
        const Values d_y = random_floats(batch * channels);
        Values expected_y(batch * channels, 0.0), expected_d_x(x.size(), 0.0);
        for (std::size_t i = 0; i < x.size(); ++i) {
            const std::size_t row = i / channels, sample = row / length;
            const std::size_t at = sample * channels + i % channels;
            const std::size_t rows = first_only ? 1 : static_cast<std::size_t>(lengths[sample]);
            if (row % length >= rows) {
                x[i] = std::numeric_limits<double>::quiet_NaN();  // must not be looked at
                continue;
            }
            const double over = first_only ? 1.0 : static_cast<double>(length);
            expected_y[at] += x[i] / over;
            expected_d_x[i] = d_y[at] / over;
        }
        const Buffer x_buffer = upload_activations(x), d_y_buffer = upload_floats(d_y);
        const Buffer lengths_buffer = upload_ints(lengths);
        const Buffer y = poisoned_floats(d_y.size()), d_x = poisoned_activations(x.size());
        const SpionMaskedMeanArguments arguments = {.x = x_buffer.data(),
                                                    .y = y.as<float>(),
                                                    .d_y = d_y_buffer.as<float>(),
                                                    .d_x = d_x.data(),
                                                    .lengths = lengths_buffer.as<int>(),
                                                    .batch = static_cast<int>(batch),
                                                    .length = static_cast<int>(length),
                                                    .first_only = first_only ? 1 : 0};
        kernels(shape).masked_mean_forward(arguments);
        kernels(shape).masked_mean_backward(arguments);
        expect_near("y", floats(y, d_y.size()), expected_y, float_tolerance());
        expect_near("d_x", activations(d_x, x.size()), expected_d_x, activation_tolerance());
    }
};

TEST_F(TrainPool, MatchesTheReference) {
    for (const StepShape& shape : shapes()) {
        for (const bool first_only : {false, true}) {
            run(shape, static_cast<std::size_t>(uniform(1, 12)),
                static_cast<std::size_t>(uniform(1, 400)), first_only);
            run(shape, 1, 1, first_only);
        }
        if (HasFatalFailure()) return;
    }
}

}  // namespace
}  // namespace spion
