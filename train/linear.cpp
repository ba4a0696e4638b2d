#include "train/linear.h"

namespace spion {

void linear_forward(const StepContext& step, const Linear& linear, const void* x, void* y) {
    step.device.gemm({.transpose_a = false,
                      .transpose_b = true,
                      .m = step.rows(),
                      .n = linear.out,
                      .k = linear.in,
                      .a = x,
                      .lda = linear.in,
                      .b = step.parameters.gemm_operand(linear.weight),
                      .ldb = linear.in,
                      .c = y,
                      .ldc = linear.out,
                      .input = step.dtype,
                      .output = step.dtype,
                      .bias = step.parameters.gemm_operand(linear.bias)});
}

void linear_weight_gradient(const StepContext& step, const Linear& linear, const void* d_y,
                            const void* x) {
    step.device.gemm({.transpose_a = true,
                      .transpose_b = false,
                      .m = linear.out,
                      .n = linear.in,
                      .k = step.rows(),
                      .a = d_y,
                      .lda = linear.out,
                      .b = x,
                      .ldb = linear.in,
                      .c = step.parameters.gradient(linear.weight),
                      .ldc = linear.in,
                      .input = step.dtype,
                      .output = DType::kFp32});
}

void linear_input_gradient(const StepContext& step, const Linear& linear, const void* d_y,
                           void* d_x) {
    step.device.gemm({.transpose_a = false,
                      .transpose_b = false,
                      .m = step.rows(),
                      .n = linear.in,
                      .k = linear.out,
                      .a = d_y,
                      .lda = linear.out,
                      .b = step.parameters.gemm_operand(linear.weight),
                      .ldb = linear.in,
                      .c = d_x,
                      .ldc = linear.in,
                      .input = step.dtype,
                      .output = step.dtype});
}

void fused_linear_backward(const StepContext& step, const FusedLinear& fused, const Linear& linear,
                           const void* d_y, const void* x, void* d_x, const void* hidden,
                           const SpionDropout& dropout) {
    fused.backward({.d_y = d_y,
                    .hidden = hidden,
                    .x = x,
                    .weight = step.parameters.gemm_operand(linear.weight),
                    .d_x = d_x,
                    .partials = step.activations.scratch.partials.as<float>(),
                    .rows = step.rows(),
                    .rows_per_item = 0,
                    .dropout = dropout});
    const std::int64_t items = fused_linear_items(step.rows());
    const std::int64_t weights = linear.out * linear.in, all = weights + linear.out;
    if (linear.bias == linear.weight + weights) {
        sum_partials(step, items, all, all, linear.weight);
    } else {
        sum_partials(step, items, weights, all, linear.weight);
        sum_partials(step, items, linear.out, all, linear.bias, weights);
    }
}

void sum_partials(const StepContext& step, std::int64_t count, std::int64_t columns,
                  std::int64_t stride, std::int64_t offset, std::int64_t first) {
    step.kernels.sum_partials({.partials = step.activations.scratch.partials.as<float>() + first,
                               .out = step.parameters.gradient(offset),
                               .count = count,
                               .columns = columns,
                               .stride = stride});
}

void norm_forward(const StepContext& step, const NormOffsets& offsets, const NormActivations& norm,
                  const void* x, const void* branch, unsigned int stream, void* y) {
    SpionNormArguments arguments{};
    arguments.x = x;
    arguments.branch = branch;
    arguments.x_out = norm.x.data();
    arguments.gamma = step.parameters.value(offsets.gamma);
    arguments.beta = step.parameters.value(offsets.beta);
    arguments.y = y;
    arguments.mean = norm.mean.as<float>();
    arguments.rstd = norm.rstd.as<float>();
    arguments.rows = step.rows();
    arguments.dropout = step.dropout_of(stream);
    step.kernels.residual_norm_forward(arguments);
}

void norm_backward(const StepContext& step, const NormOffsets& offsets, const NormActivations& norm,
                   const void* d_y, const void* d_residual, unsigned int stream, void* d_x,
                   void* d_branch) {
    SpionNormArguments arguments{};
    arguments.x_out = norm.x.data();
    arguments.gamma = step.parameters.value(offsets.gamma);
    arguments.beta = step.parameters.value(offsets.beta);
    arguments.mean = norm.mean.as<float>();
    arguments.rstd = norm.rstd.as<float>();
    arguments.d_y = d_y;
    arguments.d_residual = d_residual;
    arguments.d_x = d_x;
    arguments.d_branch = d_branch;
    arguments.partials = step.activations.scratch.partials.as<float>();
    arguments.rows = step.rows();
    arguments.dropout = step.dropout_of(stream);
    step.kernels.residual_norm_backward(arguments);
    // gamma, beta and the branch's bias lie side by side, in the partial sums and in the gradients.
    const std::int64_t c = step.shape.channels();
    sum_partials(step, spion_row_items(step.rows()), d_branch != nullptr ? 3 * c : 2 * c, 3 * c,
                 offsets.gamma);
}

}  // namespace spion
