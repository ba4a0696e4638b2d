// The backward pass of a linear map in one kernel: gradients of input, weights and bias from one
// pass over the output's gradient, which is taken through dropout and gelu on the way where those
// follow. On a GPU it replaces two products and one or two passes that are bound by their bytes.
#pragma once

#include <cstdint>

#include "compiler/launch/jit_kernel.h"
#include "kernels/train_arguments.h"
#include "runtime/cache.h"
#include "runtime/device.h"
#include "train/parameters.h"

namespace spion {

struct FusedLinearShape {
    int out = 0, in = 0;         // of the weights [out, in]
    bool gelu = false;           // y went on through dropout(gelu(y))
    float dropout = 0.0F;        // of that
    DType dtype = DType::kBf16;  // T: kBf16 or kFp16
    friend bool operator==(const FusedLinearShape&, const FusedLinearShape&) = default;
};

// The maps of a layer that may be fused: to Q, K and V; from attention's output; and the first of the
// feed-forward part.
FusedLinearShape fused_qkv(const ModelShape& shape, DType dtype = DType::kBf16);
FusedLinearShape fused_out(const ModelShape& shape, DType dtype = DType::kBf16);
FusedLinearShape fused_feed_forward1(const ModelShape& shape, double dropout,
                                     DType dtype = DType::kBf16);

// Whether there is a kernel: on a GPU, widths that are multiples of 64, and weights few enough for
// their gradient to stay in registers. Larger maps have products enough to be worth a library's.
bool can_fuse(const FusedLinearShape& shape, const Target& target);

// Needs no device.
KernelSource fused_linear_source(const FusedLinearShape& shape, const Target& target);
int fused_linear_shared_bytes(const FusedLinearShape& shape);

// How N rows are split: the same for every device, as the order of the sums depends on it.
std::int64_t fused_linear_rows_per_item(std::int64_t rows);
std::int64_t fused_linear_items(std::int64_t rows);
// Values of one partial row: the weights' gradient, then the bias'.
std::int64_t fused_linear_partial(const FusedLinearShape& shape);

class FusedLinear {
  public:
    // Requires can_fuse. `device` must outlive this.
    FusedLinear(Device& device, KernelCache& cache, const FusedLinearShape& shape);

    // Asynchronous. Chooses rows_per_item; the partial rows are the caller's to add up.
    void backward(SpionLinearBackwardArguments arguments) const;

    const FusedLinearShape& shape() const { return shape_; }
    const JitKernel& compiled() const { return kernel_; }

  private:
    Device* device_;
    FusedLinearShape shape_;
    JitKernel kernel_;
};

}  // namespace spion
