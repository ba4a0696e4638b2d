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
