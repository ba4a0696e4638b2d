#include "train/layer.h"

namespace spion {
namespace {

struct LayerLinears {
    Linear qkv, out, feed_forward1, feed_forward2;
};

LayerLinears linears_of(const StepContext& step, int index) {
    const LayerOffsets& offsets = step.layout.layers[static_cast<std::size_t>(index)];
    const std::int64_t c = step.shape.channels(), f = step.shape.feed_forward;
    return {.qkv = {offsets.qkv_weight, offsets.qkv_bias, 3 * c, c},
            .out = {offsets.out_weight, offsets.norm2.branch_bias, c, c},
            .feed_forward1 = {offsets.feed_forward1_weight, offsets.feed_forward1_bias, f, c},
            .feed_forward2 = {offsets.feed_forward2_weight, step.layout.feed_forward2_bias(index),
                              c, f}};
}

// A [B, H, L, D] view of T [N, row] whose heads start at `first` elements into each row.
SpionTensor view(const StepContext& step, void* data, std::int64_t row, std::int64_t first) {
    auto* bytes = static_cast<unsigned char*>(data) + first * storage_bytes(step.dtype);
    return {.data = bytes,
            .batch_stride = step.shape.length * row,
            .head_stride = step.shape.head_dim,
            .row_stride = row};
}

SpionGeluArguments gelu_arguments(const StepContext& step, const LayerActivations& layer,
                                  int index) {
    SpionGeluArguments arguments{};
    arguments.x = layer.hidden.data();
    arguments.rows = step.rows();
    arguments.dropout = step.dropout_of(gelu_dropout(index));
    return arguments;
}

// The arguments of norm 1 with Q, K and V.
SpionNormLinearArguments norm_linear_arguments(const StepContext& step, int index) {
    const LayerActivations& layer = step.activations.layers[static_cast<std::size_t>(index)];
    const LayerOffsets& offsets = step.layout.layers[static_cast<std::size_t>(index)];
    SpionNormLinearArguments arguments{};
    arguments.x = layer.norm1.x.data();
    arguments.gamma = step.parameters.value(offsets.norm1.gamma);
    arguments.beta = step.parameters.value(offsets.norm1.beta);
    arguments.weight = step.parameters.gemm_operand(offsets.qkv_weight);
    arguments.bias = step.parameters.value(offsets.qkv_bias);
    arguments.y = layer.qkv.data();
    arguments.mean = layer.norm1.mean.as<float>();
    arguments.rstd = layer.norm1.rstd.as<float>();
    arguments.d_y = step.activations.scratch.d_wide.data();
    arguments.d_x = step.activations.scratch.d_x.data();
    arguments.rows = step.rows();
    arguments.kept = layer.kept.as<unsigned int>();
    arguments.draws = spion_draws(step.dropout, step.layer->shape().dropout);
    arguments.out_stream = attention_dropout(index);
    arguments.gelu_stream = gelu_dropout(index);
    arguments.branch_stream = feed_forward_dropout(index);
    return arguments;
}

// Those of what follows attention. x_out: the next norm's x.
SpionLayerEndArguments layer_end_arguments(const StepContext& step, int index) {
    const auto at = static_cast<std::size_t>(index);
    const LayerActivations& layer = step.activations.layers[at];
    const LayerOffsets& offsets = step.layout.layers[at];
    const ScratchBuffers& scratch = step.activations.scratch;
    const bool last = index + 1 == step.shape.layers;
    SpionLayerEndArguments arguments{};
    arguments.o = layer.o.data();
    arguments.x = layer.norm1.x.data();
    arguments.out_weight = step.parameters.gemm_operand(offsets.out_weight);
    arguments.out_bias = step.parameters.value(offsets.norm2.branch_bias);
    arguments.gamma = step.parameters.value(offsets.norm2.gamma);
    arguments.beta = step.parameters.value(offsets.norm2.beta);
    arguments.weight1 = step.parameters.gemm_operand(offsets.feed_forward1_weight);
    arguments.bias1 = step.parameters.value(offsets.feed_forward1_bias);
    arguments.weight2 = step.parameters.gemm_operand(offsets.feed_forward2_weight);
    arguments.bias2 = step.parameters.value(step.layout.feed_forward2_bias(index));
    arguments.x_middle = layer.norm2.x.data();
    arguments.mean = layer.norm2.mean.as<float>();
    arguments.rstd = layer.norm2.rstd.as<float>();
    arguments.kept = layer.kept.as<unsigned int>();
    arguments.x_out =
        (last ? step.activations.final_norm : step.activations.layers[at + 1].norm1).x.data();
    arguments.d_x = scratch.d_x.data();
    arguments.d_branch = scratch.branch.data();
    arguments.rows = step.rows();
    arguments.scale = spion_draws(step.dropout, step.layer->shape().dropout).scale;
    return arguments;
}

// scratch.d_x [N, C], the gradient after the layer, becomes that before it.
void fused_backward(const StepContext& step, int index, const LayerLinears& linears,
                    CompiledAttention& attention, PartialSums& sums) {
    const LayerActivations& layer = step.activations.layers[static_cast<std::size_t>(index)];
    const LayerOffsets& offsets = step.layout.layers[static_cast<std::size_t>(index)];
    const ScratchBuffers& scratch = step.activations.scratch;
    const std::int64_t items = fused_layer_items(step.rows());
    const std::int64_t c = step.shape.channels(), f = step.shape.feed_forward;

    SpionLayerEndArguments end = layer_end_arguments(step, index);
    end.partials = sums.rows(items, layer_end_partial(step.layer->shape()));
    step.layer->layer_end_backward(end);
    std::int64_t maps = 2 * c * f + f;
    sums.add(maps, offsets.feed_forward1_weight);
    sums.add(c, linears.feed_forward2.bias, maps);
    sums.add(2 * c, offsets.norm2.gamma, maps + c);

    fused_linear_backward(step, *step.out, linears.out, scratch.branch.data(), layer.o.data(),
                          scratch.d_narrow.data(), sums);
    attention.backward(attention_views(step, index));  // d_narrow is d_o, d_wide becomes d_qkv

    SpionNormLinearArguments first = norm_linear_arguments(step, index);
    first.partials = sums.rows(items, norm_linear_partial(step.layer->shape()));
    step.layer->norm_linear_backward(first);
    maps = 3 * c * c + 3 * c;
    sums.add(maps, offsets.qkv_weight);
    sums.add(2 * c, offsets.norm1.gamma, maps);
}

// scratch.branch [N, C] -> scratch.d_narrow [N, C], the gradient of normed2.
void feed_forward_backward(const StepContext& step, int index, const LayerLinears& linears) {
    const LayerActivations& layer = step.activations.layers[static_cast<std::size_t>(index)];
    const ScratchBuffers& scratch = step.activations.scratch;
    void* d_hidden = scratch.d_wide.data();  // T [N, F]; first the gradient of gated
    linear_weight_gradient(step, linears.feed_forward2, scratch.branch.data(), layer.gated.data());
    linear_input_gradient(step, linears.feed_forward2, scratch.branch.data(), d_hidden);

    if (step.feed_forward1 != nullptr) {
        PartialSums sums(step);
        fused_linear_backward(step, *step.feed_forward1, linears.feed_forward1, d_hidden,
                              layer.normed2.data(), scratch.d_narrow.data(), sums,
                              layer.hidden.data(), step.dropout_of(gelu_dropout(index)));
        sums.launch();
        return;
    }
    SpionGeluArguments gelu = gelu_arguments(step, layer, index);
    gelu.d_y = d_hidden;
    gelu.d_x = d_hidden;
    gelu.d_bias_partials = scratch.partials.as<float>();
    step.kernels.gelu_dropout_backward(gelu);
    const std::int64_t f = step.shape.feed_forward;
    sum_partials(step, spion_row_items(step.rows()), f, f, linears.feed_forward1.bias);

    linear_weight_gradient(step, linears.feed_forward1, d_hidden, layer.normed2.data());
    linear_input_gradient(step, linears.feed_forward1, d_hidden, scratch.d_narrow.data());
}

// scratch.branch [N, C] -> scratch.d_narrow [N, C], the gradient of normed1.
void attention_backward(const StepContext& step, int index, const LayerLinears& linears,
                        CompiledAttention& attention) {
    const LayerActivations& layer = step.activations.layers[static_cast<std::size_t>(index)];
    const ScratchBuffers& scratch = step.activations.scratch;
    linear_weight_gradient(step, linears.out, scratch.branch.data(), layer.o.data());
    linear_input_gradient(step, linears.out, scratch.branch.data(), scratch.d_narrow.data());

    attention.backward(attention_views(step, index));  // d_narrow is d_o, d_wide becomes d_qkv

    if (step.qkv != nullptr) {
        PartialSums sums(step);
        fused_linear_backward(step, *step.qkv, linears.qkv, scratch.d_wide.data(),
                              layer.normed1.data(), scratch.d_narrow.data(), sums);
        sums.launch();
        return;
    }
    const std::int64_t wide = std::int64_t{3} * step.shape.channels();
    step.kernels.column_sums({.x = scratch.d_wide.data(),
                              .partials = scratch.partials.as<float>(),
                              .rows = step.rows()});
    sum_partials(step, spion_row_items(step.rows()), wide, wide, linears.qkv.bias);
    linear_weight_gradient(step, linears.qkv, scratch.d_wide.data(), layer.normed1.data());
    linear_input_gradient(step, linears.qkv, scratch.d_wide.data(), scratch.d_narrow.data());
}

}  // namespace

SpionAttentionArguments attention_views(const StepContext& step, int index) {
    const LayerActivations& layer = step.activations.layers[static_cast<std::size_t>(index)];
    const ScratchBuffers& scratch = step.activations.scratch;
    const std::int64_t c = step.shape.channels();
    SpionAttentionArguments arguments{};
    arguments.q = view(step, layer.qkv.data(), 3 * c, 0);
    arguments.k = view(step, layer.qkv.data(), 3 * c, c);
    arguments.v = view(step, layer.qkv.data(), 3 * c, 2 * c);
    arguments.o = view(step, layer.o.data(), c, 0);
    arguments.d_o = view(step, scratch.d_narrow.data(), c, 0);
    arguments.d_q = view(step, scratch.d_wide.data(), 3 * c, 0);
    arguments.d_k = view(step, scratch.d_wide.data(), 3 * c, c);
    arguments.d_v = view(step, scratch.d_wide.data(), 3 * c, 2 * c);
    arguments.lse = layer.lse.as<float>();
    arguments.delta = scratch.delta.as<float>();
    arguments.lengths = step.lengths;
    arguments.batch = step.batch;
    if (step.attention_dropout != nullptr) {
        arguments.dropout = step.attention_dropout + index;
    }
    return arguments;
}

const void* layer_forward(const StepContext& step, int index, CompiledAttention& attention,
                          const void* x) {
    const LayerActivations& layer = step.activations.layers[static_cast<std::size_t>(index)];
    const LayerOffsets& offsets = step.layout.layers[static_cast<std::size_t>(index)];
    const LayerLinears linears = linears_of(step, index);
    void* branch = step.activations.scratch.branch.data();

    if (step.layer != nullptr) {
        step.layer->norm_linear_forward(norm_linear_arguments(step, index));
        attention.forward(attention_views(step, index));
        const SpionLayerEndArguments end = layer_end_arguments(step, index);
        step.layer->layer_end_forward(end);
        return end.x_out;
    }
    norm_forward(step, offsets.norm1, layer.norm1, x, index > 0 ? branch : nullptr,
                 index > 0 ? feed_forward_dropout(index - 1) : 0, layer.normed1.data());
    linear_forward(step, linears.qkv, layer.normed1.data(), layer.qkv.data());
    attention.forward(attention_views(step, index));
    linear_forward(step, linears.out, layer.o.data(), branch);

    norm_forward(step, offsets.norm2, layer.norm2, layer.norm1.x.data(), branch,
                 attention_dropout(index), layer.normed2.data());
    if (step.feed_forward != nullptr) {
        step.feed_forward->forward(
            {.x = layer.normed2.data(),
             .weight1 = step.parameters.gemm_operand(linears.feed_forward1.weight),
             .bias1 = step.parameters.value(linears.feed_forward1.bias),
             .weight2 = step.parameters.gemm_operand(linears.feed_forward2.weight),
             .bias2 = step.parameters.value(linears.feed_forward2.bias),
             .hidden = layer.hidden.data(),
             .gated = layer.gated.data(),
             .y = branch,
             .rows = step.rows(),
             .rows_per_item = 0,
             .dropout = step.dropout_of(gelu_dropout(index))});
        return layer.norm2.x.data();
    }
    linear_forward(step, linears.feed_forward1, layer.normed2.data(), layer.hidden.data());
    SpionGeluArguments gelu = gelu_arguments(step, layer, index);
    gelu.y = layer.gated.data();
    step.kernels.gelu_dropout_forward(gelu);
    linear_forward(step, linears.feed_forward2, layer.gated.data(), branch);
    return layer.norm2.x.data();
}

void layer_backward(const StepContext& step, int index, CompiledAttention& attention,
                    PartialSums& sums) {
    const LayerActivations& layer = step.activations.layers[static_cast<std::size_t>(index)];
    const LayerOffsets& offsets = step.layout.layers[static_cast<std::size_t>(index)];
    const LayerLinears linears = linears_of(step, index);
    const ScratchBuffers& scratch = step.activations.scratch;
    void* d_x = scratch.d_x.data();

    if (step.layer != nullptr) {
        fused_backward(step, index, linears, attention, sums);
        return;
    }
    feed_forward_backward(step, index, linears);
    norm_backward(step, offsets.norm2, layer.norm2, scratch.d_narrow.data(), d_x,
                  attention_dropout(index), d_x, scratch.branch.data());
    attention_backward(step, index, linears, attention);
    norm_backward(step, offsets.norm1, layer.norm1, scratch.d_narrow.data(), d_x,
                  index > 0 ? feed_forward_dropout(index - 1) : 0, d_x,
                  index > 0 ? scratch.branch.data() : nullptr);
}

}  // namespace spion
