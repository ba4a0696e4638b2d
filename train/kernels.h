// The training step's kernels besides attention and GEMM, compiled for one model on one device and
// launched by name. What each computes, and the shape of every buffer: kernels/train_arguments.h.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "codegen/emit.h"
#include "compiler/launch/jit_kernel.h"
#include "kernels/train_arguments.h"
#include "runtime/cache.h"
#include "runtime/device.h"

namespace spion {

inline constexpr float kNormEpsilon = 1e-5F;  // of the layer norms: PyTorch's default

// What the kernels are specialised on.
struct StepShape {
    int channels = 64;       // C: a multiple of 8, 8..1024
    int feed_forward = 128;  // F: a multiple of 8, 8..4096
    int vocabulary = 32;     // V: 1..65536, as far as a table of V x 8 fits into shared memory
    float dropout = 0.1F;    // in [0, 1)
    float epsilon = kNormEpsilon;  // of the layer norms, > 0
    bool pairs = false;            // the head compares two sequences
    bool loss_scale = false;       // gradients are scaled
    DType dtype = DType::kBf16;    // T on a GPU: kBf16 or kFp16; the host's is fp32
    friend bool operator==(const StepShape&, const StepShape&) = default;
};

// Throws UserError that names the field, what it allows and how to mend it.
void check(const StepShape& shape);

// Kernels in the order of a step.
enum class StepKernel {
    kEmbeddingForward,
    kEmbeddingBackward,
    kEmbeddingPositionBackward,
    kResidualNormForward,
    kResidualNormBackward,
    kGeluDropoutForward,
    kGeluDropoutBackward,
    kColumnSums,  // of rows as wide as Q, K and V together: kChannels = 3 * C
    kSumPartials,
    kMaskedMeanForward,
    kMaskedMeanBackward,
    kClassifierForwardBackward,
    kClassifierWeightGradients,
    kAdamw,
    kPairFeaturesForward,  // these two only where the head compares two sequences
    kPairFeaturesBackward,
    kCountNotFinite,  // these two only where gradients are scaled
    kUpdateLossScale,
};
inline constexpr int kStepKernels = static_cast<int>(StepKernel::kUpdateLossScale) + 1;

// What `T` is in the source of a GPU's kernel: bf16 or fp16.
Constant element_constant(DType dtype);

// The source of one of them; needs no device.
KernelSource step_kernel_source(StepKernel kernel, const StepShape& shape, const Target& target);

class StepKernels {
  public:
    // Compiles all of them in parallel on worker threads, or fetches them from the cache. `device`
    // must outlive this. Throws what check and compile_kernels throw.
    StepKernels(Device& device, KernelCache& cache, const StepShape& shape);

    // Asynchronous, in order on the device's stream.
    void embedding_forward(const SpionEmbeddingArguments& arguments) const;
    void embedding_backward(const SpionEmbeddingArguments& arguments) const;
    void embedding_position_backward(const SpionEmbeddingArguments& arguments) const;
    void residual_norm_forward(const SpionNormArguments& arguments) const;
    void residual_norm_backward(const SpionNormArguments& arguments) const;
    void gelu_dropout_forward(const SpionGeluArguments& arguments) const;
    void gelu_dropout_backward(const SpionGeluArguments& arguments) const;
    void column_sums(const SpionColumnSumArguments& arguments) const;
    // All of up to kSpionMostSums sums in one launch.
    void sum_partials(std::span<const SpionPartialSum> sums) const;
    void sum_partials(const SpionPartialSum& sum) const { sum_partials({&sum, 1}); }
    void masked_mean_forward(const SpionMaskedMeanArguments& arguments) const;
    void masked_mean_backward(const SpionMaskedMeanArguments& arguments) const;
    // Of shape().pairs only.
    void pair_features_forward(const SpionPairFeaturesArguments& arguments) const;
    void pair_features_backward(const SpionPairFeaturesArguments& arguments) const;
    // Of shape().loss_scale only: count_not_finite, then update_loss_scale.
    void next_loss_scale(const SpionLossScaleArguments& arguments) const;
    void classifier_forward_backward(const SpionClassifierArguments& arguments) const;
    void classifier_weight_gradients(const SpionClassifierArguments& arguments) const;
    void adamw(const SpionAdamArguments& arguments) const;

    const StepShape& shape() const { return shape_; }
    // Those that the shape needs, in the order of StepKernel: source, origin and time of each, for
    // the report of a run.
    const std::vector<JitKernel>& compiled() const { return kernels_; }

  private:
    template <typename Arguments>
    void launch(StepKernel kernel, std::int64_t work_items, int shared_bytes,
                const Arguments& arguments) const;

    Device* device_;
    StepShape shape_;
    std::vector<JitKernel> kernels_;
    std::array<int, kStepKernels> places_{};  // of each in kernels_; -1: not compiled
};

}  // namespace spion
