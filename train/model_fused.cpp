// Which of a model's kernels are fused, on a device and for its widths.
#include "train/model.h"

namespace spion {

void Model::compile_fused(KernelCache& cache) {
    const auto fuse = [&](auto& map, const auto& shape) {
        if (can_fuse(shape, device_->target())) map.emplace(*device_, cache, shape);
    };
    const ModelShape& shape = settings_.shape;
    const auto dropout = static_cast<float>(settings_.dropout);
    fuse(embedding_, FusedEmbeddingShape{.channels = shape.channels(),
                                         .vocabulary = shape.vocabulary,
                                         .dropout = dropout,
                                         .dtype = dtype_});
    fuse(layer_, FusedLayerShape{.channels = shape.channels(),
                                 .hidden = shape.feed_forward,
                                 .dropout = dropout,
                                 .epsilon = kNormEpsilon,
                                 .dtype = dtype_});
    if (layer_) {
        out_.emplace(*device_, cache, fused_out(shape, dtype_));
        return;
    }
    fuse(qkv_, fused_qkv(shape, dtype_));
    fuse(feed_forward1_, fused_feed_forward1(shape, dropout, dtype_));
    fuse(feed_forward_, FusedFeedForwardShape{.channels = shape.channels(),
                                              .hidden = shape.feed_forward,
                                              .dropout = dropout,
                                              .dtype = dtype_});
}

SpionNormMeanArguments Model::norm_mean_arguments(const StepContext& step) const {
    SpionNormMeanArguments arguments{};
    arguments.x = activations_.final_norm.x.data();
    arguments.gamma = parameters_.value(layout_.final_norm.gamma);
    arguments.beta = parameters_.value(layout_.final_norm.beta);
    arguments.units = activations_.units.as<float>();
    arguments.y = activations_.pooled.as<float>();
    arguments.d_y = activations_.d_pooled.as<float>();
    arguments.d_x = activations_.scratch.d_x.data();
    arguments.lengths = step.lengths;
    arguments.batch = step.batch;
    arguments.length = static_cast<int>(step.shape.length);
    arguments.first_only = step.shape.pooling == Pooling::kCls ? 1 : 0;
    return arguments;
}

SpionTokenPositionArguments Model::token_position_arguments(const StepContext& step) const {
    SpionTokenPositionArguments arguments{};
    arguments.ids = step.tokens;
    arguments.token = parameters_.value(layout_.token);
    arguments.position = parameters_.value(layout_.position);
    arguments.x = activations_.layers[0].norm1.x.data();
    arguments.kept = activations_.embedding_kept.as<unsigned int>();
    arguments.d_x = activations_.scratch.d_x.data();
    arguments.d_position = parameters_.gradient(layout_.position);
    arguments.batch = step.batch;
    arguments.length = static_cast<int>(step.shape.length);
    arguments.vocabulary = step.shape.vocabulary;
    arguments.draws = spion_draws(step.dropout, embedding_->shape().dropout);
    arguments.stream = kEmbeddingDropout;
    return arguments;
}

SpionEmbeddingArguments Model::embedding_arguments(const StepContext& step) const {
    SpionEmbeddingArguments arguments{};
    arguments.ids = step.tokens;
    arguments.token = parameters_.value(layout_.token);
    arguments.position = parameters_.value(layout_.position);
    arguments.x = activations_.layers[0].norm1.x.data();
    arguments.d_x = activations_.scratch.d_x.data();
    arguments.d_token_partials = activations_.scratch.partials.as<float>();
    arguments.d_position = parameters_.gradient(layout_.position);
    arguments.rows = step.rows();
    arguments.length = static_cast<int>(step.shape.length);
    arguments.vocabulary = step.shape.vocabulary;
    arguments.dropout = step.dropout_of(kEmbeddingDropout);
    return arguments;
}

// tokens [B, L] -> residual stream [N, C]
void Model::embedding_forward(const StepContext& step) {
    if (embedding_) {
        embedding_->forward(token_position_arguments(step));
        return;
    }
    kernels_.embedding_forward(embedding_arguments(step));
}

// scratch.d_x [N, C] -> the gradients of the tables of tokens and positions; launches `sums` too
void Model::embedding_backward(const StepContext& step, PartialSums& sums) {
    const std::int64_t table =
        static_cast<std::int64_t>(step.shape.vocabulary) * step.shape.channels();
    if (embedding_) {
        SpionTokenPositionArguments arguments = token_position_arguments(step);
        arguments.d_token_partials = sums.rows(fused_embedding_items(step.shape.length), table);
        embedding_->backward(arguments);
        sums.add(table, layout_.token);
        sums.launch();
        return;
    }
    sums.launch();  // the tables' partial sums take their place
    const SpionEmbeddingArguments arguments = embedding_arguments(step);
    kernels_.embedding_backward(arguments);
    kernels_.embedding_position_backward(arguments);
    sum_partials(step, spion_token_items(step.rows(), step.shape.vocabulary), table, table,
                 layout_.token);
}

std::vector<const JitKernel*> Model::fused_kernels() const {
    std::vector<const JitKernel*> kernels;
    if (embedding_) {
        for (const JitKernel& kernel : embedding_->compiled()) kernels.push_back(&kernel);
    }
    if (layer_) {
        for (const JitKernel& kernel : layer_->compiled()) kernels.push_back(&kernel);
    }
    for (const auto* map : {&out_, &qkv_, &feed_forward1_}) {
        if (*map) kernels.push_back(&(*map)->compiled());
    }
    if (feed_forward_) kernels.push_back(&feed_forward_->compiled());
    return kernels;
}

}  // namespace spion
