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

float* PartialSums::rows(std::int64_t count, std::int64_t stride) {
    last_ = {.partials = end_, .out = nullptr, .count = count, .columns = 0, .stride = stride};
    end_ += count * stride;
    return end_ - count * stride;
}

void PartialSums::add(std::int64_t columns, std::int64_t offset, std::int64_t first) {
    SpionPartialSum sum = last_;
    sum.partials += first;
    sum.out = step_->parameters.gradient(offset);
    sum.columns = columns;
    sums_.push_back(sum);
}

void PartialSums::launch() {
    if (!sums_.empty()) step_->kernels.sum_partials(sums_);
    sums_.clear();
    end_ = step_->activations.scratch.partials.as<float>();
}

void sum_partials(const StepContext& step, std::int64_t count, std::int64_t columns,
                  std::int64_t stride, std::int64_t offset) {
    PartialSums sums(step);
    sums.rows(count, stride);
    sums.add(columns, offset);
    sums.launch();
}

void fused_linear_backward(const StepContext& step, const FusedLinear& fused, const Linear& linear,
                           const void* d_y, const void* x, void* d_x, PartialSums& sums,
                           const void* hidden, const SpionDropout& dropout) {
    const std::int64_t weights = linear.out * linear.in, all = weights + linear.out;
    fused.backward({.d_y = d_y,
                    .hidden = hidden,
                    .x = x,
                    .weight = step.parameters.gemm_operand(linear.weight),
                    .d_x = d_x,
                    .partials = sums.rows(fused_linear_items(step.rows()), all),
                    .rows = step.rows(),
                    .rows_per_item = 0,
                    .dropout = dropout});
    if (linear.bias == linear.weight + weights) {
        sums.add(all, linear.weight);
    } else {
        sums.add(weights, linear.weight);
        sums.add(linear.out, linear.bias, weights);
    }
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
