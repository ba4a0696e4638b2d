// A tiny model with everything that passes over it need, on either device.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <optional>
#include <random>
#include <vector>

#include "compiler/compile_attention.h"
#include "tests/train/test_cache.h"
#include "train/model.h"

namespace spion {

inline ModelSettings tiny_model(double dropout, std::uint64_t seed) {
    return {.shape = {.layers = 2,
                      .heads = 2,
                      .head_dim = 16,
                      .feed_forward = 40,
                      .vocabulary = 16,
                      .classes = 10,
                      .length = 40},  // not a multiple of the block
            .batch = 3,
            .dropout = dropout,
            .seed = seed};
}

// The same with widths for which there are fused kernels on a GPU.
inline ModelSettings fusable_model(double dropout, std::uint64_t seed) {
    ModelSettings settings = tiny_model(dropout, seed);
    settings.shape.head_dim = 32;
    settings.shape.feed_forward = 128;
    return settings;
}

// A model with one pattern for all layers, and the model's dropout on attention too, or another.
class ModelOnDevice {
  public:
    ModelOnDevice(DeviceChoice choice, const ModelSettings& settings, const BlockPattern& pattern,
                  SoftmaxKind softmax, std::optional<double> attention_dropout = {})
        : device_(open_device(choice)),
          cache_(test_cache_root()),
          model(settings, *device_, cache_),
          results_(*device_, sizeof(float) * 2 * static_cast<std::size_t>(settings.batch)) {
        const Attention attention = {
            .heads = settings.shape.heads,
            .head_dim = settings.shape.head_dim,
            .length = settings.shape.length,
            .dtype = model.dtype(),
            .scale = default_scale(settings.shape.head_dim),
            .softmax = softmax,
            .key_padding = true,
            .dropout = static_cast<float>(attention_dropout.value_or(settings.dropout))};
        attention_ = compile_attention(attention, {&pattern, 1}, *device_, cache_);
        model.set_attention(std::vector<CompiledAttention*>(
            static_cast<std::size_t>(settings.shape.layers), attention_[0].get()));
        batch_ = settings.batch;
        results = {.losses = results_.as<float>(),
                   .correct = results_.as<int>() + batch_,
                   .not_finite = nullptr};
    }

    Device& device() { return *device_; }
    // Of the last pass.
    double mean_loss() {
        std::vector<float> losses(static_cast<std::size_t>(batch_));
        device_->copy_out(losses.data(), results.losses, losses.size() * sizeof(float));
        double sum = 0;
        for (const float loss : losses) sum += loss;
        return sum / batch_;
    }
    // The loss of step 5 with the parameters at values + t * direction.
    template <typename Direction>
    double loss_along(const std::vector<float>& values, const Direction& direction, double t) {
        std::vector<float> moved = values;
        for (std::size_t i = 0; i < moved.size(); ++i) {
            moved[i] = static_cast<float>(values[i] + t * direction[i]);
        }
        model.parameters().upload(moved);
        model.compute_gradients(5, results);
        return mean_loss();
    }
    // An fp32 buffer's values.
    std::vector<float> read(const Buffer& buffer) {
        std::vector<float> values(buffer.bytes() / sizeof(float));
        device_->copy_out(values.data(), buffer.data(), buffer.bytes());
        return values;
    }

  private:
    std::unique_ptr<Device> device_;
    KernelCache cache_;

  public:
    Model model;
    StepResults results;

  private:
    Buffer results_;  // fp32 losses [B], int32 correct [B]
    std::vector<std::unique_ptr<CompiledAttention>> attention_;
    int batch_ = 0;
};

inline Batch random_batch(const ModelSettings& settings, std::mt19937_64& random) {
    Split split;
    std::vector<std::int64_t> samples;
    for (int b = 0; b < settings.batch * settings.shape.towers; ++b) {
        // The first sample fills all of L.
        const auto length =
            b == 0 ? settings.shape.length
                   : static_cast<std::int64_t>(1 + random() % (settings.shape.length - 1));
        std::vector<std::uint16_t> tokens;
        for (std::int64_t l = 0; l < length; ++l) {
            tokens.push_back(static_cast<std::uint16_t>(1 + random() % 15));
        }
        split.append(tokens, static_cast<int>(random() % 10));
        samples.push_back(b);
    }
    Batch batch = make_batch(split, samples, settings.shape.length);
    batch.towers = settings.shape.towers;
    batch.size = settings.batch;
    batch.labels.resize(static_cast<std::size_t>(settings.batch));
    return batch;
}

// Blocks of 16 at L = 40: 3 x 3, the last ragged. Row 1 lacks its own block, column 2 is nearly
// bare.
inline BlockPattern sparse_pattern() {
    return {40, 16, {1, 1, 0, 1, 0, 0, 1, 0, 1}};
}

// A batch seen `steps` times is learnt by heart: from the loss of a guess to below `last`.
inline void expect_fits_a_tiny_batch(DeviceChoice choice, int steps, double last) {
    ModelSettings settings = tiny_model(0.0, 3);
    settings.batch = 8;
    std::mt19937_64 random(17);
    ModelOnDevice on(choice, settings, sparse_pattern(), SoftmaxKind::kPrunedZero);
    on.model.upload(random_batch(settings, random));
    std::vector<double> losses;
    for (int step = 0; step < steps; ++step) {
        on.model.compute_gradients(static_cast<std::uint32_t>(step), on.results);
        losses.push_back(on.mean_loss());
        on.model.update(step, 3e-3, {}, on.results);
    }
    EXPECT_NEAR(losses.front(), std::log(settings.shape.classes), 0.5);
    EXPECT_LT(losses.back(), last);
}

inline double norm_of(const std::vector<double>& v) {
    double sum = 0;
    for (const double x : v) sum += x * x;
    return std::sqrt(sum);
}

}  // namespace spion
