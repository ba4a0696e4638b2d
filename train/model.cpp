#include "train/model.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "ir/error.h"
#include "train/layer.h"

namespace spion {
namespace {

StepShape step_shape(const ModelSettings& settings, DType dtype) {
    return {.channels = settings.shape.channels(),
            .feed_forward = settings.shape.feed_forward,
            .vocabulary = settings.shape.vocabulary,
            .dropout = static_cast<float>(settings.dropout),
            .epsilon = kNormEpsilon,
            .pairs = settings.shape.towers == 2,
            .loss_scale = settings.loss_scale > 0,
            .dtype = dtype == DType::kFp16 ? DType::kFp16 : DType::kBf16};
}

}  // namespace

DType activation_type(const Target& target, Precision precision) {
    if (target.back_end == BackEnd::kCuda) {
        return precision == Precision::kFp16 ? DType::kFp16 : DType::kBf16;
    }
    if (precision != Precision::kAuto) {
        throw UserError(
            "precision is {}, but the host trains in fp32: use --device cuda or --precision auto",
            precision == Precision::kFp16 ? "fp16" : "bf16");
    }
    return DType::kFp32;
}

Model::Model(const ModelSettings& settings, Device& device, KernelCache& cache)
    : settings_(settings),
      device_(&device),
      dtype_(activation_type(device.target(), settings.precision)),
      layout_(settings.shape),
      parameters_(device, layout_.initial_values(settings.seed, settings.embedding), dtype_),
      activations_(device, settings.shape, settings.shape.towers * settings.batch, dtype_),
      kernels_(device, cache, step_shape(settings, dtype_)) {
    const auto batch = static_cast<std::size_t>(settings.batch);
    const auto length = static_cast<std::size_t>(settings.shape.length);
    const auto sequences = batch * static_cast<std::size_t>(settings.shape.towers);
    const auto aligned = [](std::size_t bytes) { return (bytes + 255) / 256 * 256; };
    labels_at_ = aligned(sequences * sizeof(std::int32_t));
    tokens_at_ = labels_at_ + aligned(batch * sizeof(std::int32_t));
    for (Buffer& one : batches_) {
        one = Buffer(device, tokens_at_ + sequences * length * sizeof(std::uint16_t));
    }
    compile_fused(cache);
    if (settings.loss_scale > 0) {
        loss_scale_ = Buffer(device, sizeof(SpionLossScale));
        set_loss_scale({.scale = static_cast<float>(settings.loss_scale)});
    }
}

void Model::set_attention(std::vector<CompiledAttention*> layers) {
    if (static_cast<int>(layers.size()) != settings_.shape.layers) {
        throw InternalError("{} attentions for {} layers", layers.size(), settings_.shape.layers);
    }
    attention_ = std::move(layers);
}

void Model::upload(const Batch& batch) {
    if (batch.size < 1 || batch.size > settings_.batch || batch.length != settings_.shape.length ||
        batch.towers != settings_.shape.towers) {
        throw InternalError("a batch of [{}, {}, {}] for a model of [{}, {}, {}]", batch.towers,
                            batch.size, batch.length, settings_.shape.towers, settings_.batch,
                            settings_.shape.length);
    }
    samples_ = batch.size;
    const auto stage = [this](std::size_t at, const auto& values) {
        const auto bytes = std::as_bytes(std::span(values));
        std::copy(bytes.begin(), bytes.end(), staged_.begin() + static_cast<std::ptrdiff_t>(at));
    };
    staged_.resize(tokens_at_ + batch.tokens.size() * sizeof(std::uint16_t));
    stage(0, batch.lengths);
    stage(labels_at_, batch.labels);
    stage(tokens_at_, batch.tokens);
    batch_ = 1 - batch_;
    device_->copy_in_ahead(batches_[batch_].data(), staged_.data(), staged_.size());
}

StepContext Model::context(SpionDropout dropout) const {
    if (attention_.empty()) throw InternalError("the model has no attention yet");
    if (samples_ == 0) throw InternalError("the model has no batch yet");
    const Buffer& uploaded = batches_[batch_];
    return {.device = *device_,
            .kernels = kernels_,
            .shape = settings_.shape,
            .layout = layout_,
            .parameters = parameters_,
            .activations = activations_,
            .layer = layer_ ? &*layer_ : nullptr,
            .out = out_ ? &*out_ : nullptr,
            .qkv = qkv_ ? &*qkv_ : nullptr,
            .feed_forward = feed_forward_ ? &*feed_forward_ : nullptr,
            .feed_forward1 = feed_forward1_ ? &*feed_forward1_ : nullptr,
            .dtype = dtype_,
            .batch = samples_ * settings_.shape.towers,
            .tokens = reinterpret_cast<const std::uint16_t*>(uploaded.as<std::byte>() + tokens_at_),
            .lengths = uploaded.as<int>(),
            .labels = reinterpret_cast<const int*>(uploaded.as<std::byte>() + labels_at_),
            .dropout = dropout,
            .attention_dropout =
                attention_dropout_ ? attention_dropout_.as<SpionDropoutState>() : nullptr};
}

// Steps and layers are numbered through, so that none draws what another has drawn; the key is not
// that of the other dropouts, whose counters may be the same.
void Model::set_attention_dropout(std::uint32_t step, bool enabled) {
    constexpr std::uint64_t kOfAttention = 0x9E3779B97F4A7C15;
    if (attention_.empty() || attention_.front()->attention().dropout == 0.0F) return;
    std::vector<SpionDropoutState> states;
    const auto layers = static_cast<std::uint32_t>(settings_.shape.layers);
    for (std::uint32_t layer = 0; layer < layers; ++layer) {
        states.push_back({.seed = settings_.seed ^ kOfAttention,
                          .offset = step * layers + layer,
                          .enabled = enabled ? 1 : 0});
    }
    const std::size_t bytes = states.size() * sizeof(SpionDropoutState);
    if (!attention_dropout_) attention_dropout_ = Buffer(*device_, bytes);
    device_->copy_in(attention_dropout_.data(), states.data(), bytes);
}

void Model::evaluate(const StepResults& results) {
    set_attention_dropout(0, false);
    const StepContext step = context({.seed = 0, .step = 0, .stream = 0, .enabled = 0});
    encoder_forward(step);
    head(step, results, false);
}

void Model::compute_gradients(std::uint32_t step, const StepResults& results) {
    accumulate_gradients(step, 0, 1, results);
}

// sums_ has two rows, the sum so far and this pass's gradients, which sum_partials adds up.
void Model::accumulate_gradients(std::uint32_t step_index, int part, int parts,
                                 const StepResults& results, const GradientsLaunched& launched) {
    set_attention_dropout(step_index, true);
    const StepContext step = context({.seed = settings_.seed,
                                      .step = step_index,
                                      .stream = 0,
                                      .enabled = settings_.dropout > 0 ? 1 : 0});
    encoder_forward(step);
    head(step, results, true, parts);
    encoder_backward(step, parts == 1 ? launched : GradientsLaunched{});
    if (parts == 1) return;
    const std::int64_t size = parameters_.size();
    const std::size_t bytes = static_cast<std::size_t>(size) * sizeof(float);
    if (!sums_) sums_ = Buffer(*device_, 2 * bytes);
    SpionPartialSum sum{};
    sum.columns = sum.stride = size;
    if (part == 0) {
        sum.partials = parameters_.gradient(0);
        sum.count = 1;
        sum.out = sums_.as<float>();
        kernels_.sum_partials(sum);
        return;
    }
    sum.partials = parameters_.gradient(0);
    sum.count = 1;
    sum.out = sums_.as<float>() + size;
    kernels_.sum_partials(sum);
    sum.partials = sums_.as<float>();
    sum.count = 2;
    sum.out = part + 1 == parts ? parameters_.gradient(0) : sums_.as<float>();
    kernels_.sum_partials(sum);
    if (part + 1 == parts && launched) launched(0, size);
}

// tokens [B, L] -> residual stream [N, C] -> ... -> pooled [B, C]
void Model::encoder_forward(const StepContext& step) {
    embedding_forward(step);
    const void* x = activations_.layers[0].norm1.x.data();
    const int layers = step.shape.layers;
    for (int i = 0; i < layers; ++i) {
        x = layer_forward(step, i, *attention_[static_cast<std::size_t>(i)], x);
    }
    if (layer_) {
        layer_->norm_mean_forward(norm_mean_arguments(step));
        return;
    }
    void* normed = activations_.scratch.d_narrow.data();  // T [N, C]
    norm_forward(step, layout_.final_norm, activations_.final_norm, x,
                 activations_.scratch.branch.data(), feed_forward_dropout(layers - 1), normed);
    SpionMaskedMeanArguments mean{};
    mean.x = normed;
    mean.y = activations_.pooled.as<float>();
    mean.lengths = step.lengths;
    mean.batch = step.batch;
    mean.length = static_cast<int>(step.shape.length);
    mean.first_only = step.shape.pooling == Pooling::kCls ? 1 : 0;
    kernels_.masked_mean_forward(mean);
}

// d_pooled [B, C] -> the gradients of every parameter before the head
void Model::encoder_backward(const StepContext& step, const GradientsLaunched& launched) {
    std::int64_t untold = parameters_.size();  // those below it
    const auto tell_from = [&](std::int64_t first) {
        if (launched) launched(first, untold - first);
        untold = first;
    };
    const ScratchBuffers& scratch = activations_.scratch;
    const int layers = step.shape.layers;
    PartialSums sums(step);
    if (layer_) {
        SpionNormMeanArguments mean = norm_mean_arguments(step);
        const std::int64_t c = step.shape.channels();
        mean.partials = sums.rows(step.batch, 2 * c);
        layer_->norm_mean_backward(mean);
        sums.add(2 * c, layout_.final_norm.gamma);
        if (launched) sums.launch();
        // With the norm lies the bias of the last layer, whose gradient is still to be made.
        tell_from(layout_.head1_weight);
    } else {
        SpionMaskedMeanArguments mean{};
        mean.d_y = activations_.d_pooled.as<float>();
        mean.d_x = scratch.d_narrow.data();
        mean.lengths = step.lengths;
        mean.batch = step.batch;
        mean.length = static_cast<int>(step.shape.length);
        mean.first_only = step.shape.pooling == Pooling::kCls ? 1 : 0;
        kernels_.masked_mean_backward(mean);
        norm_backward(step, layout_.final_norm, activations_.final_norm, scratch.d_narrow.data(),
                      nullptr, feed_forward_dropout(layers - 1), scratch.d_x.data(),
                      scratch.branch.data());
        tell_from(layout_.final_norm.gamma);
    }
    for (int i = layers - 1; i >= 0; --i) {
        layer_backward(step, i, *attention_[static_cast<std::size_t>(i)], sums);
        // Who adds up gradients of several processes begins with this layer's beside the next one.
        if (launched || (layers - i) % kSummedLayers == 0) sums.launch();
        const LayerOffsets& offsets = layout_.layers[static_cast<std::size_t>(i)];
        tell_from(layer_ ? offsets.qkv_weight : offsets.norm1.gamma);
    }

    embedding_backward(step, sums);
    tell_from(0);
}

// pooled [T, B, C] -> losses, correct [B]; with `backward` also d_pooled [T, B, C] and the head's
// gradients
void Model::head(const StepContext& step, const StepResults& results, bool backward, int parts) {
    const bool pairs = step.shape.towers == 2;
    SpionPairFeaturesArguments features{};
    features.pooled = activations_.pooled.as<float>();
    features.y = activations_.features.as<float>();
    features.d_y = activations_.d_features.as<float>();
    features.d_pooled = activations_.d_pooled.as<float>();
    features.batch = samples_;
    if (pairs) kernels_.pair_features_forward(features);
    SpionClassifierArguments head{};
    head.pooled = pairs ? features.y : features.pooled;
    head.w1 = parameters_.value(layout_.head1_weight);
    head.b1 = parameters_.value(layout_.head1_bias);
    head.w2 = parameters_.value(layout_.head2_weight);
    head.b2 = parameters_.value(layout_.head2_bias);
    head.labels = step.labels;
    head.hidden = activations_.head_hidden.as<float>();
    head.losses = results.losses;
    head.correct = results.correct;
    head.batch = samples_;
    head.mean_over = samples_ * parts * settings_.processes;
    head.channels = step.shape.features();
    head.hidden_width = step.shape.feed_forward;
    head.classes = step.shape.classes;
    if (backward) {
        head.loss_scale = loss_scale_.as<SpionLossScale>();
        head.d_hidden = activations_.d_head_hidden.as<float>();
        head.d_logits = activations_.d_logits.as<float>();
        head.d_pooled = (pairs ? activations_.d_features : activations_.d_pooled).as<float>();
        head.d_w1 = parameters_.gradient(layout_.head1_weight);
        head.d_b1 = parameters_.gradient(layout_.head1_bias);
        head.d_w2 = parameters_.gradient(layout_.head2_weight);
        head.d_b2 = parameters_.gradient(layout_.head2_bias);
    }
    kernels_.classifier_forward_backward(head);
    if (!backward) return;
    kernels_.classifier_weight_gradients(head);
    if (pairs) kernels_.pair_features_backward(features);
}

void Model::update(std::int64_t step, double learning_rate, const OptimiserSettings& optimiser,
                   const StepResults& results) {
    // A step that is left out counts all the same, in the schedule and here.
    const auto t = static_cast<double>(step + 1);
    if (loss_scale_) {
        if (results.not_finite == nullptr) throw InternalError("a scaled loss without counts");
        kernels_.next_loss_scale({.state = loss_scale_.as<SpionLossScale>(),
                                  .gradients = parameters_.gradient(0),
                                  .not_finite = results.not_finite,
                                  .used = results.loss_scale,
                                  .count = parameters_.size(),
                                  .growth_steps = settings_.loss_scale_growth});
    }
    SpionAdamArguments adam{};
    adam.parameters = parameters_.value(0);
    adam.parameters_low = parameters_.low().data();
    adam.gradients = parameters_.gradient(0);
    adam.m = parameters_.first_moment().as<float>();
    adam.v = parameters_.second_moment().as<float>();
    adam.not_finite = loss_scale_ ? nullptr : results.not_finite;  // counted already
    adam.loss_scale = loss_scale_.as<SpionLossScale>();
    adam.count = parameters_.size();
    adam.learning_rate = static_cast<float>(learning_rate);
    adam.beta1 = static_cast<float>(optimiser.beta1);
    adam.beta2 = static_cast<float>(optimiser.beta2);
    adam.epsilon = static_cast<float>(optimiser.epsilon);
    adam.weight_decay = static_cast<float>(optimiser.weight_decay);
    adam.clip = static_cast<float>(optimiser.clip);
    adam.bias1 = static_cast<float>(1.0 - std::pow(optimiser.beta1, t));
    adam.bias2 = static_cast<float>(1.0 - std::pow(optimiser.beta2, t));
    kernels_.adamw(adam);
}

SpionLossScale Model::loss_scale() const {
    SpionLossScale state;
    device_->copy_out(&state, loss_scale_.data(), sizeof state);
    return state;
}

void Model::set_loss_scale(const SpionLossScale& state) {
    device_->copy_in(loss_scale_.data(), &state, sizeof state);
}

SpionAttentionArguments Model::attention_arguments(int layer) const {
    return attention_views(context({}), layer);
}

std::vector<float> Model::logits() const {
    const auto samples = static_cast<std::size_t>(samples_);
    const auto width = static_cast<std::size_t>(settings_.shape.feed_forward);
    const auto classes = static_cast<std::size_t>(settings_.shape.classes);
    const auto read = [this](const void* data, std::size_t count) {
        std::vector<float> values(count);
        device_->copy_out(values.data(), data, count * sizeof(float));
        return values;
    };
    const auto hidden = read(activations_.head_hidden.data(), samples * width);
    const auto weight = read(parameters_.value(layout_.head2_weight), classes * width);
    const auto bias = read(parameters_.value(layout_.head2_bias), classes);
    std::vector<float> logits;
    for (std::size_t sample = 0; sample < samples; ++sample) {
        for (std::size_t k = 0; k < classes; ++k) {
            double sum = bias[k];
            for (std::size_t h = 0; h < width; ++h) {
                sum += double{hidden[sample * width + h]} * double{weight[k * width + h]};
            }
            logits.push_back(static_cast<float>(sum));
        }
    }
    return logits;
}

std::int64_t Model::not_finite_items() const {
    return (parameters_.size() + kSpionAdamValuesPerItem - 1) / kSpionAdamValuesPerItem;
}

}  // namespace spion
