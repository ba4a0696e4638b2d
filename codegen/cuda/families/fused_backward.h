// All gradients by one kernel, after one for delta: 5 matrix products for 7 and the exponentials
// once, for B H L D 4 bytes of device memory more. sm_90a
// (kernels/cuda/sm90/wgmma_attention_gradients.cuh).
#pragma once

#include "codegen/kernel_family.h"

namespace spion {

extern const KernelFamily kFusedBackward;

}  // namespace spion
