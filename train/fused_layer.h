// An encoder layer beside attention in four kernels, and what follows the last layer in two, each of which keeps rows in registers from what it
// reads to what it writes: norm and Q, K, V; output projection, norm and feed-forward part; and the
// backward passes of both; the last norm with the mean over a sample's rows. Between forward and backward pass the residual stream is kept, twice a layer,
// and the bits of dropout; the rest is computed again.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "compiler/launch/jit_kernel.h"
#include "kernels/layer_arguments.h"
#include "runtime/cache.h"
#include "runtime/device.h"
#include "train/parameters.h"

namespace spion {

struct FusedLayerShape {
    int channels = 64;           // C; Q, K and V together have 3C
    int hidden = 128;            // F
    float dropout = 0.1F;        // of both branches and behind gelu
    float epsilon = 1e-5F;       // of the norms
    DType dtype = DType::kBf16;  // T: kBf16 or kFp16
    friend bool operator==(const FusedLayerShape&, const FusedLayerShape&) = default;
};

// Whether there are kernels: on a GPU whose thread blocks have 220 KB of shared memory (sm_90), for the
// widths whose rows and weights' gradients fit into registers: C = 64, F = 64 or 128.
bool can_fuse(const FusedLayerShape& shape, const Target& target);

enum class FusedLayerKernel {
    kNormLinearForward,
    kNormLinearBackward,
    kLayerEndForward,
    kLayerEndBackward,
    kNormMeanForward,
    kNormMeanBackward,
};
inline constexpr int kFusedLayerKernels = 6;

// These need no device.
KernelSource fused_layer_source(FusedLayerKernel kernel, const FusedLayerShape& shape,
                                const Target& target);
int fused_layer_threads(FusedLayerKernel kernel);
int fused_layer_shared_bytes(FusedLayerKernel kernel, const FusedLayerShape& shape);

// How the backward passes split N rows: the same for every device, as the order of the sums depends on
// it. Values of one partial row: kernels/layer_arguments.h.
std::int64_t fused_layer_rows_per_item(std::int64_t rows);
std::int64_t fused_layer_items(std::int64_t rows);
std::int64_t norm_linear_partial(const FusedLayerShape& shape);
std::int64_t layer_end_partial(const FusedLayerShape& shape);
// Words of what the dropouts of N rows keep.
std::int64_t fused_layer_kept(const FusedLayerShape& shape, std::int64_t rows);

class FusedLayer {
  public:
    // Requires can_fuse. `device` must outlive this.
    FusedLayer(Device& device, KernelCache& cache, const FusedLayerShape& shape);

    // Asynchronous. They choose rows_per_item; partial rows are the caller's to add up.
    void norm_linear_forward(SpionNormLinearArguments arguments) const;
    void norm_linear_backward(SpionNormLinearArguments arguments) const;
    void layer_end_forward(SpionLayerEndArguments arguments) const;
    void layer_end_backward(SpionLayerEndArguments arguments) const;
    void norm_mean_forward(const SpionNormMeanArguments& arguments) const;
    void norm_mean_backward(SpionNormMeanArguments arguments) const;

    const FusedLayerShape& shape() const { return shape_; }
    const std::vector<JitKernel>& compiled() const { return kernels_; }

  private:
    template <typename Arguments>
    void launch(FusedLayerKernel kernel, const Arguments& arguments, std::int64_t rows,
                std::int64_t items) const;
    template <typename Arguments>
    void launch(FusedLayerKernel kernel, Arguments& arguments) const;

    Device* device_;
    FusedLayerShape shape_;
    std::vector<JitKernel> kernels_;  // in the order of FusedLayerKernel
};

}  // namespace spion
