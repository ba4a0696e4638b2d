// pair_features_forward and pair_features_backward.
#include <fmt/format.h>

#include "tests/kernels/train_fixture.h"

namespace spion {
namespace {

class TrainPair : public StepKernelTest {
  protected:
    void run(StepShape shape, std::size_t batch) {
        SCOPED_TRACE(fmt::format("B={} C={}", batch, shape.channels));
        shape.pairs = true;
        const auto channels = static_cast<std::size_t>(shape.channels);
        const std::size_t other = batch * channels;  // from a to b
        const Values pooled = random_floats(2 * other), d_y = random_floats(4 * other);
        Values expected(4 * other), expected_gradient(2 * other);
        for (std::size_t i = 0; i < other; ++i) {
            const std::size_t at = i / channels * 4 * channels + i % channels;
            const double a = pooled[i], b = pooled[other + i];
            expected[at] = a;
            expected[at + channels] = b;
            expected[at + 2 * channels] = a * b;
            expected[at + 3 * channels] = a - b;
            const double da = d_y[at], db = d_y[at + channels], product = d_y[at + 2 * channels],
                         difference = d_y[at + 3 * channels];
            expected_gradient[i] = da + product * b + difference;
            expected_gradient[other + i] = db + product * a - difference;
        }
        const Buffer pooled_buffer = upload_floats(pooled), d_y_buffer = upload_floats(d_y);
        const Buffer y = poisoned_floats(4 * other), d_pooled = poisoned_floats(2 * other);
        const SpionPairFeaturesArguments arguments = {.pooled = pooled_buffer.as<float>(),
                                                      .y = y.as<float>(),
                                                      .d_y = d_y_buffer.as<float>(),
                                                      .d_pooled = d_pooled.as<float>(),
                                                      .batch = static_cast<int>(batch)};
        kernels(shape).pair_features_forward(arguments);
        kernels(shape).pair_features_backward(arguments);
        expect_near("y", floats(y, 4 * other), expected, float_tolerance());
        expect_near("d_pooled", floats(d_pooled, 2 * other), expected_gradient, float_tolerance());
    }
};

TEST_F(TrainPair, MatchesTheReference) {
    for (const StepShape& shape : shapes()) {
        run(shape, static_cast<std::size_t>(uniform(1, 40)));
        run(shape, 1);
        if (HasFatalFailure()) return;
    }
}

}  // namespace
}  // namespace spion
