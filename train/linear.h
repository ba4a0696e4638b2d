// The pieces that layers are made of: linear layers on [N, in] rows, and norms with the residual
// branch that enters just before them.
#pragma once

#include <vector>

#include "train/step_context.h"

namespace spion {

// y = x W^T + bias.
struct Linear {
    std::int64_t weight = 0;  // offset of [out, in]
    std::int64_t bias = 0;    // offset of [out]
    std::int64_t out = 0, in = 0;
};

// x: T [N, in] -> y: T [N, out].
void linear_forward(const StepContext& step, const Linear& linear, const void* x, void* y);
// Weight gradient d_y^T x: [out, N] [N, in] -> fp32 [out, in].
void linear_weight_gradient(const StepContext& step, const Linear& linear, const void* d_y,
                            const void* x);
// d_y: T [N, out] -> d_x = d_y W: T [N, in].
void linear_input_gradient(const StepContext& step, const Linear& linear, const void* d_y,
                           void* d_x);

// Partial sums in the scratch buffer, of several launches one behind the other, which one launch adds up. It
// has room for those of kSummedLayers fused layers with what lies before and behind them.
class PartialSums {
  public:
    explicit PartialSums(const StepContext& step)
        : step_(&step), end_(step.activations.scratch.partials.as<float>()) {}
    // Room for fp32 [count, stride], behind that of before.
    float* rows(std::int64_t count, std::int64_t stride);
    // Columns [first, first + columns) of the last room -> the gradient at `offset`: fp32 [columns].
    void add(std::int64_t columns, std::int64_t offset, std::int64_t first = 0);
    // From here on the buffer is empty again. Nothing to add up: nothing is launched.
    void launch();

  private:
    const StepContext* step_;
    float* end_;
    SpionPartialSum last_{};
    std::vector<SpionPartialSum> sums_;
};

// The same for all `columns` of one launch's [count, stride] in the scratch buffer.
void sum_partials(const StepContext& step, std::int64_t count, std::int64_t columns,
                  std::int64_t stride, std::int64_t offset);

// All three gradients of a map that can be fused: d_y [N, out] and x [N, in] to d_x [N, in] and, once
// `sums` are launched, the gradients of weights and bias. hidden [N, out] and dropout are of a map with
// gelu behind it.
void fused_linear_backward(const StepContext& step, const FusedLinear& fused, const Linear& linear,
                           const void* d_y, const void* x, void* d_x, PartialSums& sums,
                           const void* hidden = nullptr, const SpionDropout& dropout = {});

// x + dropout(branch) -> norm.x (x itself when branch is null: then norm.x is not written and must
// be x), its layer norm -> y. All T [N, C].
void norm_forward(const StepContext& step, const NormOffsets& offsets, const NormActivations& norm,
                  const void* x, const void* branch, unsigned int stream, void* y);
// d_y, d_residual: T [N, C] -> d_x and, unless null, d_branch: T [N, C]; and the gradients of
// gamma, beta and the branch's bias. d_x may be d_residual.
void norm_backward(const StepContext& step, const NormOffsets& offsets, const NormActivations& norm,
                   const void* d_y, const void* d_residual, unsigned int stream, void* d_x,
                   void* d_branch);

}  // namespace spion
