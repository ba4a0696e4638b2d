#include "train/model.h"

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
    make_room_for_batches();
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

void Model::evaluate(const StepResults& results) {
    begin_pass({}, false);
    const StepContext step = context(false);
    encoder_forward(step);
    head(step, results, false);
}

void Model::compute_gradients(std::uint32_t step, const StepResults& results) {
    accumulate_gradients(step, 0, 1, results);
}

void Model::accumulate_gradients(std::uint32_t step, int part, int parts,
                                 const StepResults& results, const GradientsLaunched& launched) {
    begin_pass(pass_state(step, 0, 0, {}), true);
    launch_gradients(part, parts, results, launched);
}

// sums_ has two rows, the sum so far and this pass's gradients, which sum_partials adds up.
void Model::launch_gradients(int part, int parts, const StepResults& results,
                             const GradientsLaunched& launched) {
    const StepContext step = context(true);
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
    head.now = step.now;
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
    begin_pass(pass_state(0, step, learning_rate, optimiser), true);
    launch_update(optimiser, results);
}

void Model::launch_update(const OptimiserSettings& optimiser, const StepResults& results) {
    const SpionPassState* now = context(true).now;
    if (loss_scale_) {
        if (results.not_finite == nullptr) throw InternalError("a scaled loss without counts");
        kernels_.next_loss_scale({.state = loss_scale_.as<SpionLossScale>(),
                                  .gradients = parameters_.gradient(0),
                                  .not_finite = results.not_finite,
                                  .used = results.loss_scale,
                                  .count = parameters_.size(),
                                  .growth_steps = settings_.loss_scale_growth,
                                  .now = now});
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
    adam.beta1 = static_cast<float>(optimiser.beta1);
    adam.beta2 = static_cast<float>(optimiser.beta2);
    adam.epsilon = static_cast<float>(optimiser.epsilon);
    adam.weight_decay = static_cast<float>(optimiser.weight_decay);
    adam.clip = static_cast<float>(optimiser.clip);
    adam.now = now;
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
    return attention_views(context(false), layer);
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
    return spion_adam_items(parameters_.size());
}

}  // namespace spion
