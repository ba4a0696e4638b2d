#include "train/activations.h"

#include <algorithm>

#include "kernels/train_arguments.h"
#include "train/fused_embedding.h"
#include "train/fused_layer.h"
#include "train/fused_linear.h"

namespace spion {
namespace {

struct Sizes {
    Device& device;
    std::size_t rows;     // N
    std::size_t element;  // bytes of T
    Buffer activation(std::int64_t width) const {
        return {device, rows * static_cast<std::size_t>(width) * element};
    }
    Buffer floats(std::int64_t count) const {
        return {device, static_cast<std::size_t>(count) * sizeof(float)};
    }
    NormActivations norm(int channels) const {
        const auto count = static_cast<std::int64_t>(rows);
        return {.x = activation(channels), .mean = floats(count), .rstd = floats(count)};
    }
};

FusedLayerShape fused_shape(const ModelShape& shape) {
    return {.channels = shape.channels(), .hidden = shape.feed_forward};
}

FusedEmbeddingShape embedding_shape(const ModelShape& shape) {
    return {.channels = shape.channels(), .vocabulary = shape.vocabulary};
}

// fp32 values of the largest partial sums: norms [items, 3C], gelu [items, F], columns of qkv
// [items, 3C], token gradients [(token or fused embedding's) items, V, C], fused linear maps [items, weights and bias]. Those of the last
// norm with its mean [B, 2C], of fused layers and of a fused embedding lie one behind the other.
std::int64_t partial_values(const ModelShape& shape, std::int64_t rows, const Target& target) {
    const std::int64_t c = shape.channels();
    std::int64_t values =
        std::max(spion_row_items(rows) * std::max<std::int64_t>(3 * c, shape.feed_forward),
                 spion_token_items(rows, shape.vocabulary) * shape.vocabulary * c);
    const std::int64_t embedding = can_fuse(embedding_shape(shape), target)
                                       ? fused_embedding_items(shape.length) * shape.vocabulary * c
                                       : 0;
    values = std::max(values, embedding);
    if (can_fuse(fused_shape(shape), target)) {
        const FusedLayerShape fused = fused_shape(shape);
        const std::int64_t layer =
            fused_layer_items(rows) * (norm_linear_partial(fused) + layer_end_partial(fused)) +
            fused_linear_items(rows) * fused_linear_partial(fused_out(shape));
        return std::max(values, rows / shape.length * 2 * c +
                                    std::min(shape.layers, kSummedLayers) * layer + embedding);
    }
    for (const FusedLinearShape& fused :
         {fused_qkv(shape), fused_out(shape), fused_feed_forward1(shape, 0)}) {
        if (can_fuse(fused, target)) {
            values = std::max(values, fused_linear_items(rows) * fused_linear_partial(fused));
        }
    }
    return values;
}

}  // namespace

Activations::Activations(Device& device, const ModelShape& shape, int batch, DType dtype) {
    const std::int64_t rows = batch * shape.length;
    const int c = shape.channels(), f = shape.feed_forward;
    const Sizes sizes{.device = device,
                      .rows = static_cast<std::size_t>(rows),
                      .element = static_cast<std::size_t>(storage_bytes(dtype))};
    const bool fused = can_fuse(fused_shape(shape), device.target());
    const auto unless_fused = [&](std::int64_t width) {
        return fused ? Buffer() : sizes.activation(width);
    };
    for (int i = 0; i < shape.layers; ++i) {
        layers.push_back(
            {.norm1 = sizes.norm(c),
             .normed1 = unless_fused(c),
             .qkv = sizes.activation(std::int64_t{3} * c),
             .o = sizes.activation(c),
             .lse = sizes.floats(rows * shape.heads),
             .norm2 = sizes.norm(c),
             .normed2 = unless_fused(c),
             .hidden = unless_fused(f),
             .gated = unless_fused(f),
             .kept = fused ? sizes.floats(fused_layer_kept(fused_shape(shape), rows)) : Buffer()});
    }
    if (const auto embedding = embedding_shape(shape); can_fuse(embedding, device.target())) {
        embedding_kept = sizes.floats(fused_embedding_kept(embedding, batch, shape.length));
    }
    final_norm = sizes.norm(c);
    scratch = {.branch = sizes.activation(c),
               .d_x = sizes.activation(c),
               .d_narrow = sizes.activation(c),
               .d_wide = sizes.activation(fused ? 3 * c : std::max(3 * c, f)),
               .delta = sizes.floats(rows * shape.heads),
               .partials = sizes.floats(partial_values(shape, rows, device.target()))};
    const std::int64_t samples = batch / shape.towers;
    if (fused) units = sizes.floats(static_cast<std::int64_t>(batch) * c);
    pooled = sizes.floats(static_cast<std::int64_t>(batch) * c);
    d_pooled = sizes.floats(static_cast<std::int64_t>(batch) * c);
    if (shape.towers == 2) {
        features = sizes.floats(samples * shape.features());
        d_features = sizes.floats(samples * shape.features());
    }
    head_hidden = sizes.floats(samples * f);
    d_head_hidden = sizes.floats(samples * f);
    d_logits = sizes.floats(samples * shape.classes);
}

}  // namespace spion
