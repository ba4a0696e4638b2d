// The feed-forward part of a layer in one kernel: two linear maps with gelu and dropout between
// them. On a GPU it replaces two products and a pass between them that are bound by their bytes.
#pragma once

#include <cstdint>

#include "compiler/launch/jit_kernel.h"
#include "kernels/train_arguments.h"
#include "runtime/cache.h"
#include "runtime/device.h"

namespace spion {

struct FusedFeedForwardShape {
    int channels = 0;            // C
    int hidden = 0;              // F
    float dropout = 0.0F;        // after gelu
    DType dtype = DType::kBf16;  // T: kBf16 or kFp16
    friend bool operator==(const FusedFeedForwardShape&, const FusedFeedForwardShape&) = default;
};

// Whether there is a kernel: on a GPU, widths that are multiples of 64, and both weights small
// enough to lie in shared memory. Larger maps have products enough to be worth a library's.
bool can_fuse(const FusedFeedForwardShape& shape, const Target& target);

// Needs no device.
KernelSource fused_feed_forward_source(const FusedFeedForwardShape& shape, const Target& target);
int fused_feed_forward_shared_bytes(const FusedFeedForwardShape& shape);

class FusedFeedForward {
  public:
    // Requires can_fuse. `device` must outlive this.
    FusedFeedForward(Device& device, KernelCache& cache, const FusedFeedForwardShape& shape);

    // Asynchronous. Chooses rows_per_item.
    void forward(SpionFeedForwardArguments arguments) const;

    const JitKernel& compiled() const { return kernel_; }

  private:
    Device* device_;
    FusedFeedForwardShape shape_;
    JitKernel kernel_;
};

}  // namespace spion
