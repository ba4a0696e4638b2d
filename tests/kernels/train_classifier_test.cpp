// classifier_forward_backward and classifier_weight_gradients.
#include <fmt/format.h>

#include <cmath>

#include "ir/error.h"
#include "tests/kernels/train_fixture.h"
#include "tests/kernels/train_reference.h"
#include "tests/support/expect_error.h"
#include "tests/support/seed.h"

namespace spion {
namespace {

class TrainClassifier : public StepKernelTest {
  protected:
    Head random_head(int channels, int hidden, int classes) {
        const auto c = static_cast<std::size_t>(channels), h = static_cast<std::size_t>(hidden),
                   k = static_cast<std::size_t>(classes);
        return {.channels = channels,
                .hidden = hidden,
                .classes = classes,
                .w1 = random_floats(h * c, 0.3),
                .b1 = random_floats(h, 0.3),
                .w2 = random_floats(k * h, 0.3),
                .b2 = random_floats(k, 0.3)};
    }

    // A head's inputs and outputs on the device; outputs are poisoned.
    struct OnDevice {
        Buffer pooled, labels, w1, b1, w2, b2;
        Buffer hidden, d_hidden, d_logits, d_pooled, losses, correct, d_w1, d_b1, d_w2, d_b2;

        // Of an evaluation: without d_pooled.
        SpionClassifierArguments arguments(const Head& head, std::size_t batch) const {
            return {.pooled = pooled.as<float>(),
                    .w1 = w1.as<float>(),
                    .b1 = b1.as<float>(),
                    .w2 = w2.as<float>(),
                    .b2 = b2.as<float>(),
                    .labels = labels.as<int>(),
                    .hidden = hidden.as<float>(),
                    .d_hidden = d_hidden.as<float>(),
                    .d_logits = d_logits.as<float>(),
                    .d_pooled = nullptr,
                    .losses = losses.as<float>(),
                    .correct = correct.as<int>(),
                    .d_w1 = d_w1.as<float>(),
                    .d_b1 = d_b1.as<float>(),
                    .d_w2 = d_w2.as<float>(),
                    .d_b2 = d_b2.as<float>(),
                    .batch = static_cast<int>(batch),
                    .channels = head.channels,
                    .hidden_width = head.hidden,
                    .classes = head.classes,
                    .mean_over = static_cast<int>(batch)};
        }
    };

    OnDevice upload(const Head& head, const Values& pooled, const std::vector<int>& labels) {
        const std::size_t batch = labels.size();
        const auto hidden = static_cast<std::size_t>(head.hidden);
        const auto classes = static_cast<std::size_t>(head.classes);
        return {.pooled = upload_floats(pooled),
                .labels = upload_ints(labels),
                .w1 = upload_floats(head.w1),
                .b1 = upload_floats(head.b1),
                .w2 = upload_floats(head.w2),
                .b2 = upload_floats(head.b2),
                .hidden = poisoned_floats(batch * hidden),
                .d_hidden = poisoned_floats(batch * hidden),
                .d_logits = poisoned_floats(batch * classes),
                .d_pooled = poisoned_floats(pooled.size()),
                .losses = poisoned_floats(batch),
                .correct = poisoned_floats(batch),
                .d_w1 = poisoned_floats(head.w1.size()),
                .d_b1 = poisoned_floats(hidden),
                .d_w2 = poisoned_floats(head.w2.size()),
                .d_b2 = poisoned_floats(classes)};
    }

    void run(const Head& head, std::size_t batch) {
        SCOPED_TRACE(fmt::format("B={} C={} hidden={} classes={}", batch, head.channels,
                                 head.hidden, head.classes));
        const Values pooled = random_floats(batch * static_cast<std::size_t>(head.channels));
        std::vector<int> labels(batch);
        for (int& label : labels) label = uniform(0, head.classes - 1);
        const HeadResult expected = run_head(head, pooled, labels);
        const OnDevice on_device = upload(head, pooled, labels);
        SpionClassifierArguments arguments = on_device.arguments(head, batch);
        StepKernels& compiled = kernels(shapes()[0]);
        // Evaluation first: it must leave the gradients alone.
        compiled.classifier_forward_backward(arguments);
        for (const double value :
             floats(on_device.d_logits, batch * static_cast<std::size_t>(head.classes))) {
            ASSERT_TRUE(std::isnan(value)) << "evaluation wrote a gradient";
        }
        expect_near("losses", floats(on_device.losses, batch), expected.losses, float_tolerance());
        EXPECT_EQ(ints(on_device.correct, batch), expected.correct);
        expect_results_from(2, arguments, expected);

        arguments.d_pooled = on_device.d_pooled.as<float>();
        compiled.classifier_forward_backward(arguments);
        compiled.classifier_weight_gradients(arguments);
        expect_outputs(on_device, expected);
        expect_scales(on_device, head, arguments, expected);
    }

    // Losses and predictions lie where the pass's state says, and nothing before.
    void expect_results_from(std::size_t first, SpionClassifierArguments arguments,
                             const HeadResult& expected) {
        const std::size_t count = first + expected.losses.size();
        const Buffer losses = poisoned_floats(count), correct = poisoned_floats(count),
                     now = upload_state({.first_sample = static_cast<long long>(first)});
        arguments.losses = losses.as<float>();
        arguments.correct = correct.as<int>();
        arguments.now = now.as<SpionPassState>();
        kernels(shapes()[0]).classifier_forward_backward(arguments);
        Values found = floats(losses, count);
        std::vector<int> right = ints(correct, count);
        for (std::size_t i = 0; i < first; ++i) {
            EXPECT_TRUE(std::isnan(found[i]));
            EXPECT_EQ(right[i], -1);
        }
        const auto before = static_cast<std::ptrdiff_t>(first);
        found.erase(found.begin(), found.begin() + before);
        right.erase(right.begin(), right.begin() + before);
        expect_near("losses", found, expected.losses, float_tolerance());
        EXPECT_EQ(right, expected.correct);
    }

    void expect_outputs(const OnDevice& on_device, const HeadResult& expected) {
        const auto expect = [&](const char* name, const Buffer& got, const Values& want) {
            expect_near(name, floats(got, want.size()), want, float_tolerance());
        };
        expect("hidden", on_device.hidden, expected.hidden);
        expect("losses", on_device.losses, expected.losses);
        expect("d_hidden", on_device.d_hidden, expected.d_hidden);
        expect("d_logits", on_device.d_logits, expected.d_logits);
        expect("d_pooled", on_device.d_pooled, expected.d_pooled);
        expect("d_w1", on_device.d_w1, expected.d_w1);
        expect("d_b1", on_device.d_b1, expected.d_b1);
        expect("d_w2", on_device.d_w2, expected.d_w2);
        expect("d_b2", on_device.d_b2, expected.d_b2);
    }

    // A power of two, so that the scaled gradients have the same digits.
    void expect_scales(const OnDevice& on_device, const Head& head,
                       SpionClassifierArguments arguments, const HeadResult& expected) {
        const std::size_t inputs = expected.d_pooled.size();
        const Values d_x = floats(on_device.d_pooled, inputs);
        const Values d_w = floats(on_device.d_w1, head.w1.size());
        const Buffer scale(*device_, sizeof(SpionLossScale));
        const SpionLossScale state{.scale = 256};
        device_->copy_in(scale.data(), &state, sizeof state);
        arguments.loss_scale = scale.as<SpionLossScale>();
        StepKernels& compiled = kernels(shapes()[0]);
        compiled.classifier_forward_backward(arguments);
        compiled.classifier_weight_gradients(arguments);
        expect_near("losses", floats(on_device.losses, expected.losses.size()), expected.losses,
                    float_tolerance());
        EXPECT_EQ(floats(on_device.d_pooled, inputs), times(d_x, state.scale));
        EXPECT_EQ(floats(on_device.d_w1, head.w1.size()), times(d_w, state.scale));
    }

    static Values times(Values values, double factor) {
        for (double& value : values) value *= factor;
        return values;
    }
};

TEST_F(TrainClassifier, MatchesTheReference) {
    run(random_head(64, 128, 10), 32);
    run(random_head(8 * uniform(1, 30), uniform(1, 200), uniform(2, 50)),
        static_cast<std::size_t>(uniform(1, 40)));
    run(random_head(64, 33, 1), 3);
    run(random_head(8, 16, 1024), 2);
}

// With equal logits the first class is the prediction.
TEST_F(TrainClassifier, TakesTheFirstOfEqualLogits) {
    Head head = random_head(8, 8, 40);
    head.w2.assign(head.w2.size(), 0.0);
    head.b2.assign(head.b2.size(), 0.0);
    head.b2[7] = head.b2[33] = head.b2[39] = 1.0;
    run(head, 64);
}

TEST_F(TrainClassifier, RefusesMoreClassesThanItHolds) {
    SpionClassifierArguments arguments = {};
    arguments.batch = arguments.channels = arguments.hidden_width = 1;
    arguments.classes = 1025;
    expect_error<InternalError>(
        [&] { kernels(shapes()[0]).classifier_forward_backward(arguments); }, "1025 classes");
}

TEST(TrainClassifierReference, GradientsAreTheDerivativesOfTheMeanLoss) {
    std::mt19937_64 random(test::fresh_seed());
    std::normal_distribution<double> normal;
    const auto draw = [&](std::size_t n) {
        Values values(n);
        for (double& value : values) value = normal(random);
        return values;
    };
    Head head{.channels = 8,
              .hidden = 6,
              .classes = 4,
              .w1 = draw(48),
              .b1 = draw(6),
              .w2 = draw(24),
              .b2 = draw(4)};
    const std::vector<int> labels = {0, 3, 1};
    const Values pooled = draw(24);
    const HeadResult result = run_head(head, pooled, labels);
    const auto mean_loss = [&](const Head& at, const Values& x) {
        double sum = 0.0;
        for (const double loss : run_head(at, x, labels).losses) sum += loss;
        return sum / static_cast<double>(labels.size());
    };
    const auto check_member = [&](Values Head::*member, const Values& gradient) {
        const auto loss = [&](const Values& values) {
            Head at = head;
            at.*member = values;
            return mean_loss(at, pooled);
        };
        for (std::size_t i = 0; i < gradient.size(); ++i) {
            EXPECT_NEAR(gradient[i], numerical_derivative(loss, head.*member, i), 1e-6);
        }
    };
    check_member(&Head::w1, result.d_w1);
    check_member(&Head::b1, result.d_b1);
    check_member(&Head::w2, result.d_w2);
    check_member(&Head::b2, result.d_b2);
    const auto of_pooled = [&](const Values& x) { return mean_loss(head, x); };
    for (std::size_t i = 0; i < pooled.size(); ++i) {
        EXPECT_NEAR(result.d_pooled[i], numerical_derivative(of_pooled, pooled, i), 1e-6);
    }
}

}  // namespace
}  // namespace spion
