// A model as training has left it, ready to be asked: a checkpoint on a device.
#pragma once

#include <memory>
#include <vector>

#include "compiler/compile_attention.h"
#include "train/checkpoint.h"
#include "train/model.h"

namespace spion {

class TrainedModel {
  public:
    // Compiles its kernels, sparse ones where it was trained sparse, for batches of up to `batch`
    // samples. `device` must outlive it.
    TrainedModel(const Checkpoint& checkpoint, int batch, Device& device, KernelCache& cache);

    Model& model() { return model_; }
    // Logits [samples, classes] of a split's samples, in their order.
    std::vector<float> logits(const Samples& split);

  private:
    int batch_;
    Device* device_;
    Model model_;
    std::vector<std::unique_ptr<CompiledAttention>> attention_;  // [layers]; [1] when dense
    Buffer results_;  // fp32 losses [batch], int32 correct [batch]
};

}  // namespace spion
