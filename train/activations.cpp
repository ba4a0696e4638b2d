#include "train/activations.h"

#include <algorithm>

#include "kernels/train_arguments.h"
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

// fp32 values of the largest partial sums: norms [items, 3C], gelu [items, F], columns of qkv
// [items, 3C], token gradients [token items, V, C], fused linear maps [items, weights and bias].
std::int64_t partial_values(const ModelShape& shape, std::int64_t rows, const Target& target) {
    const std::int64_t c = shape.channels();
    std::int64_t values =
        std::max(spion_row_items(rows) * std::max<std::int64_t>(3 * c, shape.feed_forward),
                 spion_token_items(rows, shape.vocabulary) * shape.vocabulary * c);
    for (const FusedLinearShape& fused : {fused_qkv(shape), fused_feed_forward1(shape, 0)}) {
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
    for (int i = 0; i < shape.layers; ++i) {
        layers.push_back({.norm1 = sizes.norm(c),
                          .normed1 = sizes.activation(c),
                          .qkv = sizes.activation(3 * c),
                          .o = sizes.activation(c),
                          .lse = sizes.floats(rows * shape.heads),
                          .norm2 = sizes.norm(c),
                          .normed2 = sizes.activation(c),
                          .hidden = sizes.activation(f),
                          .gated = sizes.activation(f)});
    }
    final_norm = sizes.norm(c);
    scratch = {.branch = sizes.activation(c),
               .d_x = sizes.activation(c),
               .d_narrow = sizes.activation(c),
               .d_wide = sizes.activation(std::max(3 * c, f)),
               .delta = sizes.floats(rows * shape.heads),
               .partials = sizes.floats(partial_values(shape, rows, device.target()))};
    const std::int64_t samples = batch / shape.towers;
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
