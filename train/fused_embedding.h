// The embedding before the first layer in one kernel each way: tokens, positions and dropout, whose bits
// the forward pass keeps for the other; and there the gradients of both tables from one read of d_x.
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

struct FusedEmbeddingShape {
    int channels = 64;    // C
    int vocabulary = 32;  // V
    float dropout = 0.1F;
    DType dtype = DType::kBf16;  // T: kBf16 or kFp16
    friend bool operator==(const FusedEmbeddingShape&, const FusedEmbeddingShape&) = default;
};

// Whether there are kernels: on a GPU, for C = 64 and a table of all tokens in shared memory.
bool can_fuse(const FusedEmbeddingShape& shape, const Target& target);

enum class FusedEmbeddingKernel { kTokenPositionForward, kTokenPositionBackward };
inline constexpr int kFusedEmbeddingKernels = 2;

// These need no device.
KernelSource fused_embedding_source(FusedEmbeddingKernel kernel, const FusedEmbeddingShape& shape,
                                    const Target& target);
int fused_embedding_threads(FusedEmbeddingKernel kernel);
int fused_embedding_shared_bytes(FusedEmbeddingKernel kernel, const FusedEmbeddingShape& shape);
std::int64_t fused_embedding_forward_items(std::int64_t batch, std::int64_t length);

// How the backward pass splits L positions: the same for every device, as the order of the sums depends
// on it. Each item leaves a partial row of V C values.
int fused_embedding_positions_per_item(std::int64_t length);
std::int64_t fused_embedding_items(std::int64_t length);
// Words of what the dropout of B samples keeps.
std::int64_t fused_embedding_kept(const FusedEmbeddingShape& shape, std::int64_t batch,
                                  std::int64_t length);

class FusedEmbedding {
  public:
    // Requires can_fuse. `device` must outlive this.
    FusedEmbedding(Device& device, KernelCache& cache, const FusedEmbeddingShape& shape);

    // Asynchronous. They choose positions_per_item; partial rows are the caller's to add up.
    void forward(SpionTokenPositionArguments arguments) const;
    void backward(SpionTokenPositionArguments arguments) const;

    const FusedEmbeddingShape& shape() const { return shape_; }
    const std::vector<JitKernel>& compiled() const { return kernels_; }

  private:
    void launch(FusedEmbeddingKernel kernel, const SpionTokenPositionArguments& arguments,
                std::int64_t items) const;

    Device* device_;
    FusedEmbeddingShape shape_;
    std::vector<JitKernel> kernels_;  // in the order of FusedEmbeddingKernel
};

}  // namespace spion
