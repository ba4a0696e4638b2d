// adamw.
#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/kernels/train_fixture.h"

namespace spion {
namespace {

class TrainAdamw : public StepKernelTest {
  protected:
    struct State {
        Values parameters, m, v;
    };
    // Adam's step as its authors write it, one value at a time.
    static void step(State& state, const Values& gradients, const SpionAdamArguments& a,
                     const SpionPassState& now) {
        for (std::size_t i = 0; i < gradients.size(); ++i) {
            const double limit = a.clip;
            const double g = std::max(-limit, std::min(limit, gradients[i]));
            state.m[i] = a.beta1 * state.m[i] + (1.0 - a.beta1) * g;
            state.v[i] = a.beta2 * state.v[i] + (1.0 - a.beta2) * g * g;
            const double mean = state.m[i] / now.bias1, spread = std::sqrt(state.v[i] / now.bias2);
            state.parameters[i] -= now.learning_rate * (mean / (spread + a.epsilon) +
                                                        a.weight_decay * state.parameters[i]);
        }
    }
};

TEST_F(TrainAdamw, ThreeStepsMatchTheReference) {
    const auto count = static_cast<std::size_t>(uniform(1, 5000));
    const std::size_t items = (count + kSpionAdamValuesPerItem - 1) / kSpionAdamValuesPerItem;
    State state{random_floats(count), Values(count, 0.0), Values(count, 0.0)};
    const Buffer parameters = upload_floats(state.parameters), m = upload_floats(state.m),
                 v = upload_floats(state.v), low = poisoned_activations(count),
                 not_finite = poisoned_floats(3 * items);
    for (int t = 1; t <= 3; ++t) {
        const Values gradients = random_floats(count, t == 2 ? 10.0 : 0.1);  // 2: mostly clipped
        const Buffer gradient_buffer = upload_floats(gradients);
        const SpionPassState now{.slot = t,
                                 .learning_rate = 0.01F,
                                 .bias1 = 1.0F - std::pow(0.9F, static_cast<float>(t)),
                                 .bias2 = 1.0F - std::pow(0.999F, static_cast<float>(t))};
        const Buffer now_buffer = upload_state(now);
        const SpionAdamArguments arguments = {.parameters = parameters.as<float>(),
                                              .parameters_low = on_gpu() ? low.data() : nullptr,
                                              .gradients = gradient_buffer.as<float>(),
                                              .m = m.as<float>(),
                                              .v = v.as<float>(),
                                              .not_finite = t == 3 ? nullptr : not_finite.as<int>(),
                                              .count = static_cast<long long>(count),
                                              .beta1 = 0.9F,
                                              .beta2 = 0.999F,
                                              .epsilon = 1e-6F,
                                              .weight_decay = 0.1F,
                                              .clip = 1.0F,
                                              .now = now_buffer.as<SpionPassState>()};
        kernels(shapes()[0]).adamw(arguments);
        step(state, gradients, arguments, now);
    }
    expect_near("parameters", floats(parameters, count), state.parameters, 1e-5);
    expect_near("m", floats(m, count), state.m, 1e-5);
    expect_near("v", floats(v, count), state.v, 1e-5);
    // Of each step in its own slot, and nowhere else.
    std::vector<int> counts(3 * items, 0);
    std::fill_n(counts.begin(), items, -1);
    EXPECT_EQ(ints(not_finite, 3 * items), counts);
    if (on_gpu()) expect_near("low", activations(low, count), state.parameters, 4e-3);
}

// Scaled gradients give the step of the unscaled ones; with skip nothing changes.
TEST_F(TrainAdamw, DividesByTheLossScaleAndLeavesStepsOut) {
    const auto count = static_cast<std::size_t>(uniform(1, 5000));
    const Values start = random_floats(count), gradients = random_floats(count, 64.0);
    for (const int skip : {0, 1}) {
        State state{start, Values(count, 0.0), Values(count, 0.0)};
        const Buffer parameters = upload_floats(start), m = upload_floats(state.m),
                     v = upload_floats(state.v), gradient_buffer = upload_floats(gradients),
                     scale(*device_, sizeof(SpionLossScale));
        const SpionLossScale loss_scale{.scale = 512, .used = 256, .skip = skip};
        device_->copy_in(scale.data(), &loss_scale, sizeof loss_scale);
        const SpionPassState now{.learning_rate = 0.01F, .bias1 = 0.1F, .bias2 = 0.001F};
        const Buffer now_buffer = upload_state(now);
        const SpionAdamArguments arguments = {.parameters = parameters.as<float>(),
                                              .parameters_low = nullptr,
                                              .gradients = gradient_buffer.as<float>(),
                                              .m = m.as<float>(),
                                              .v = v.as<float>(),
                                              .not_finite = nullptr,
                                              .count = static_cast<long long>(count),
                                              .beta1 = 0.9F,
                                              .beta2 = 0.999F,
                                              .epsilon = 1e-6F,
                                              .weight_decay = 0.1F,
                                              .clip = 0.3F,
                                              .now = now_buffer.as<SpionPassState>(),
                                              .loss_scale = scale.as<SpionLossScale>()};
        kernels(shapes()[0]).adamw(arguments);
        Values unscaled = gradients;
        for (double& gradient : unscaled) gradient /= 256;
        if (skip == 0) step(state, unscaled, arguments, now);
        expect_near("parameters", floats(parameters, count), state.parameters, 1e-5);
        expect_near("m", floats(m, count), state.m, 1e-5);
        expect_near("v", floats(v, count), state.v, 1e-5);
    }
}

// By the words of kernels/train_arguments.h, with overflows at random.
TEST_F(TrainAdamw, TheNextLossScaleFollowsTheRule) {
    StepShape shape = shapes()[0];
    shape.loss_scale = true;
    const auto count = static_cast<std::size_t>(uniform(1, 5000));
    const std::size_t items = (count + kSpionAdamValuesPerItem - 1) / kSpionAdamValuesPerItem;
    const Buffer state(*device_, sizeof(SpionLossScale)), used = poisoned_floats(2),
                                                          not_finite = poisoned_floats(2 * items);
    float scale = 4;
    int good = 0, skipped = 0;
    const SpionLossScale first{.scale = scale};
    device_->copy_in(state.data(), &first, sizeof first);
    for (int n = 0; n < 30; ++n) {
        Values gradients = random_floats(count);
        const bool overflow = n < 4 || uniform(0, 3) == 0;
        const auto at = static_cast<std::size_t>(uniform(0, static_cast<int>(count) - 1));
        if (overflow) {
            const bool nan = uniform(0, 1) == 0;
            gradients[at] = nan ? std::numeric_limits<double>::quiet_NaN()
                                : std::numeric_limits<double>::infinity();
        }
        const Buffer buffer = upload_floats(gradients);
        const int slot = n % 2;
        const Buffer now = upload_state({.slot = slot});
        kernels(shape).next_loss_scale({.state = state.as<SpionLossScale>(),
                                        .gradients = buffer.as<float>(),
                                        .not_finite = not_finite.as<int>(),
                                        .used = used.as<float>(),
                                        .count = static_cast<long long>(count),
                                        .growth_steps = 2,
                                        .now = slot == 0 ? nullptr : now.as<SpionPassState>()});
        std::vector<int> counts(items, 0);
        if (overflow) counts[at / kSpionAdamValuesPerItem] = 1;
        const std::vector<int> found_counts = ints(not_finite, 2 * items);
        const auto begin = found_counts.begin() + static_cast<std::ptrdiff_t>(slot * items);
        EXPECT_TRUE(std::equal(counts.begin(), counts.end(), begin));
        EXPECT_EQ(floats(used, 2)[static_cast<std::size_t>(slot)], scale);
        skipped += overflow ? 1 : 0;
        good = overflow ? 0 : good + 1;
        if (overflow) scale = std::max(1.0F, scale / 2);
        if (good == 2) {
            scale *= 2;
            good = 0;
        }
        SpionLossScale found;
        device_->copy_out(&found, state.data(), sizeof found);
        EXPECT_EQ(found.scale, scale);
        EXPECT_EQ(found.skip, overflow ? 1 : 0);
        EXPECT_EQ(found.good_steps, good);
        EXPECT_EQ(found.skipped, skipped);
    }
}

TEST_F(TrainAdamw, CountsWhatIsNotFiniteAndClipsInfinities) {
    const std::size_t count = 3000, items = 3;
    Values gradients(count, 0.5);
    gradients[10] = std::numeric_limits<double>::infinity();
    gradients[1500] = -std::numeric_limits<double>::infinity();
    gradients[1501] = std::numeric_limits<double>::quiet_NaN();
    const Values zeros(count, 0.0);
    const Buffer parameters = upload_floats(zeros), m = upload_floats(zeros),
                 v = upload_floats(zeros), gradient_buffer = upload_floats(gradients),
                 not_finite = poisoned_floats(items), now = upload_state({.learning_rate = 1});
    kernels(shapes()[0])
        .adamw({.parameters = parameters.as<float>(),
                .parameters_low = nullptr,
                .gradients = gradient_buffer.as<float>(),
                .m = m.as<float>(),
                .v = v.as<float>(),
                .not_finite = not_finite.as<int>(),
                .count = count,
                .beta1 = 0.0F,
                .beta2 = 0.0F,
                .epsilon = 0.0F,
                .weight_decay = 0.0F,
                .clip = 0.25F,
                .now = now.as<SpionPassState>()});
    EXPECT_EQ(ints(not_finite, items), (std::vector<int>{1, 2, 0}));
    const Values moved_m = floats(m, count), moved = floats(parameters, count);
    EXPECT_EQ(moved_m[10], 0.25);
    EXPECT_EQ(moved_m[1500], -0.25);
    EXPECT_EQ(moved_m[2], 0.25);
    EXPECT_NEAR(moved[2], -1.0, 1e-6);
    EXPECT_TRUE(std::isnan(moved[1501]));
}

}  // namespace
}  // namespace spion
