// Which of a model's kernels are fused, on a device and for its widths.
#include "train/model.h"

namespace spion {

void Model::compile_fused(KernelCache& cache) {
    const auto fuse = [&](auto& map, const auto& shape) {
        if (can_fuse(shape, device_->target())) map.emplace(*device_, cache, shape);
    };
    const ModelShape& shape = settings_.shape;
    const auto dropout = static_cast<float>(settings_.dropout);
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

std::vector<const JitKernel*> Model::fused_kernels() const {
    std::vector<const JitKernel*> kernels;
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
