#include "train/model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <random>

#include "tests/support/seed.h"
#include "tests/train/model_on_device.h"

namespace spion {
namespace {

// The loss's derivative along `direction` by central differences of two widths, so that the error
// of second order cancels.
double measured_slope(ModelOnDevice& host, const std::vector<float>& values,
                      const std::vector<double>& direction, double width) {
    const auto loss_at = [&](double t) { return host.loss_along(values, direction, t); };
    const double wide = (loss_at(width) - loss_at(-width)) / (2 * width);
    const double narrow = (loss_at(width / 2) - loss_at(-width / 2)) / width;
    return (4 * narrow - wide) / 3;
}

// Every parameter's analytic gradient against the slope of the loss, along a direction that is half
// the gradient itself (so that the slope is far above the loss's rounding) and half random (so that
// a wrong component shows).
void check_gradients(const BlockPattern& pattern, SoftmaxKind softmax, double dropout,
                     int towers = 1) {
    const auto seed = test::fresh_seed();
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    std::normal_distribution<double> normal;
    ModelSettings settings = tiny_model(dropout, seed);
    settings.shape.towers = towers;
    ModelOnDevice host(DeviceChoice::kCpu, settings, pattern, softmax);
    host.model.upload(random_batch(settings, random));
    // Embeddings and weights far from their small first values, so that every path matters.
    std::vector<float> values = host.read(host.model.parameters().values());
    for (const ParameterInfo& parameter : host.model.layout().table()) {
        for (std::int64_t i = 0; i < parameter.count(); ++i) {
            values[static_cast<std::size_t>(parameter.offset + i)] +=
                static_cast<float>(0.1 * normal(random));
        }
    }
    // Half of the head's hidden values are far above 0 and half far below: none of them crosses the
    // kink of the ReLU, where a difference quotient is no derivative.
    for (int i = 0; i < settings.shape.feed_forward; ++i) {
        values[static_cast<std::size_t>(host.model.layout().head1_bias + i)] = i % 2 == 0 ? 4 : -4;
    }
    host.model.parameters().upload(values);
    host.model.compute_gradients(5, host.results);
    const std::vector<float> gradients = host.read(host.model.parameters().gradients());

    for (const ParameterInfo& parameter : host.model.layout().table()) {
        const auto first = static_cast<std::size_t>(parameter.offset);
        const auto last = first + static_cast<std::size_t>(parameter.count());
        std::vector<double> gradient(values.size()), direction(values.size());
        for (std::size_t i = first; i < last; ++i) {
            gradient[i] = gradients[i];
            direction[i] = normal(random);
        }
        const double gradient_norm = norm_of(gradient), direction_norm = norm_of(direction);
        ASSERT_GT(gradient_norm, 1e-6) << parameter.name;
        double analytic = 0;
        for (std::size_t i = first; i < last; ++i) {
            direction[i] = gradient[i] / gradient_norm + direction[i] / direction_norm;
            analytic += gradient[i] * direction[i];
        }
        const double width = std::min(0.05, 4e-3 / gradient_norm);
        const double measured = measured_slope(host, values, direction, width);
        // The loss is a mean of fp32 numbers near 2.3: its rounding, 5e-7, over the width.
        EXPECT_NEAR(measured, analytic, 0.01 * gradient_norm + 5e-7 / width) << parameter.name;
    }
}

TEST(ModelGradients, AgreeWithTheLossOnDenseAttention) {
    check_gradients(BlockPattern::full(40, 16), SoftmaxKind::kPrunedZero, 0.0);
}
TEST(ModelGradients, AgreeWithTheLossOnSparseAttention) {
    check_gradients(sparse_pattern(), SoftmaxKind::kPrunedZero, 0.0);
    check_gradients(sparse_pattern(), SoftmaxKind::kMasked, 0.0);
}
TEST(ModelGradients, AgreeWithTheLossUnderDropout) {
    check_gradients(sparse_pattern(), SoftmaxKind::kPrunedZero, 0.25);
}

TEST(ModelGradients, AgreeWithTheLossOfPairs) {
    check_gradients(sparse_pattern(), SoftmaxKind::kPrunedZero, 0.25, 2);
    check_gradients(BlockPattern::full(40, 16), SoftmaxKind::kMasked, 0.0, 2);
}

// The gradients of several passes add up to those of their mean loss.
TEST(ModelGradients, AddUpOverPasses) {
    const ModelSettings settings = tiny_model(0.0, 4);
    std::mt19937_64 random(6);
    ModelOnDevice host(DeviceChoice::kCpu, settings, sparse_pattern(), SoftmaxKind::kPrunedZero);
    std::vector<double> expected(static_cast<std::size_t>(host.model.layout().size()));
    std::vector<Batch> batches;
    for (int pass = 0; pass < 3; ++pass) {
        batches.push_back(random_batch(settings, random));
        host.model.upload(batches.back());
        host.model.compute_gradients(0, host.results);
        const auto gradients = host.read(host.model.parameters().gradients());
        for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += gradients[i] / 3;
    }
    for (int pass = 0; pass < 3; ++pass) {
        host.model.upload(batches[static_cast<std::size_t>(pass)]);
        host.model.accumulate_gradients(0, pass, 3, host.results);
    }
    const auto gradients = host.read(host.model.parameters().gradients());
    const double scale = norm_of(expected);
    for (std::size_t i = 0; i < expected.size(); ++i) {
        ASSERT_NEAR(gradients[i], expected[i], 1e-6 * scale) << i;
    }
}

TEST(Model, FitsATinyBatch) {
    expect_fits_a_tiny_batch(DeviceChoice::kCpu, 150, 0.05);
}

TEST(Model, PaddingChangesNothing) {
    const ModelSettings settings = tiny_model(0.0, 3);
    std::mt19937_64 random(5);
    ModelOnDevice host(DeviceChoice::kCpu, settings, sparse_pattern(), SoftmaxKind::kMasked);
    Batch batch = random_batch(settings, random);
    host.model.upload(batch);
    host.model.evaluate(host.results);
    const double loss = host.mean_loss();
    for (int b = 0; b < batch.size; ++b) {
        for (std::int64_t l = batch.lengths[static_cast<std::size_t>(b)]; l < batch.length; ++l) {
            batch.tokens[static_cast<std::size_t>(b * batch.length + l)] = 9;
        }
    }
    host.model.upload(batch);
    host.model.evaluate(host.results);
    EXPECT_EQ(host.mean_loss(), loss);
}

// Of the activations alone, of attention alone.
void expect_drawn_anew(double dropout, double attention_dropout) {
    const ModelSettings settings = tiny_model(dropout, 3);
    std::mt19937_64 random(5);
    ModelOnDevice host(DeviceChoice::kCpu, settings, sparse_pattern(), SoftmaxKind::kPrunedZero,
                       attention_dropout);
    host.model.upload(random_batch(settings, random));
    const auto loss = [&](int step) {
        if (step < 0) host.model.evaluate(host.results);
        if (step >= 0) {
            host.model.compute_gradients(static_cast<std::uint32_t>(step), host.results);
        }
        return host.mean_loss();
    };
    const double evaluated = loss(-1), first = loss(0), second = loss(1);
    EXPECT_EQ(loss(-1), evaluated);
    EXPECT_EQ(loss(0), first);
    EXPECT_NE(first, second);
    EXPECT_NE(first, evaluated);
}

TEST(Model, DropoutIsOffInEvaluationAndDrawnAnewEachStep) {
    expect_drawn_anew(0.3, 0.0);
    expect_drawn_anew(0.0, 0.3);
}

}  // namespace
}  // namespace spion
