#include "train/trained_model.h"

#include <algorithm>
#include <numeric>

namespace spion {
namespace {

// On the host in fp32, whatever it was trained in.
ModelSettings evaluation_settings(const Checkpoint& checkpoint, int batch, const Target& target) {
    const bool host = target.back_end == BackEnd::kHost;
    return {.shape = model_shape(checkpoint.settings, checkpoint.classes),
            .batch = batch,
            .dropout = checkpoint.settings.dropout,
            .seed = checkpoint.settings.seed,
            .precision = host ? Precision::kAuto : checkpoint.settings.precision};
}

}  // namespace

TrainedModel::TrainedModel(const Checkpoint& checkpoint, int batch, Device& device,
                           KernelCache& cache)
    : batch_(batch),
      device_(&device),
      model_(evaluation_settings(checkpoint, batch, device.target()), device, cache),
      results_(device, 2 * sizeof(float) * static_cast<std::size_t>(batch)) {
    const TrainSettings& s = checkpoint.settings;
    model_.parameters().upload(checkpoint.values);
    std::vector<HeadPatterns> patterns = checkpoint.patterns;
    if (patterns.empty()) patterns.push_back(full_patterns(s));
    CompileOptions options;
    options.batch = std::int64_t{batch} * model_.shape().towers;
    attention_ =
        compile_attention(attention_of(s, model_.dtype()), patterns, device, cache, options);
    std::vector<CompiledAttention*> layers;
    for (int layer = 0; layer < s.layers; ++layer) {
        layers.push_back(
            attention_[checkpoint.patterns.empty() ? 0 : static_cast<std::size_t>(layer)].get());
    }
    model_.set_attention(std::move(layers));
}

std::vector<float> TrainedModel::logits(const Samples& split) {
    std::vector<float> all;
    for (std::int64_t first = 0; first < split.samples(); first += batch_) {
        std::vector<std::int64_t> samples(
            static_cast<std::size_t>(std::min<std::int64_t>(batch_, split.samples() - first)));
        std::iota(samples.begin(), samples.end(), first);
        model_.upload(
            make_batch(split, samples, model_.shape().length, model_.shape().class_token()));
        model_.evaluate({.losses = results_.as<float>(),
                         .correct = results_.as<int>() + batch_,
                         .not_finite = nullptr});
        const std::vector<float> some = model_.logits();
        all.insert(all.end(), some.begin(), some.end());
    }
    return all;
}

}  // namespace spion
