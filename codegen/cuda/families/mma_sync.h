// Thread blocks that share a work item and multiply with mma.sync, or with fp32's units: the general
// family of GPUs, from sm_80 on (kernels/cuda/sm80/).
#pragma once

#include "codegen/kernel_family.h"

namespace spion {

extern const KernelFamily kMmaSync;

// What its thread blocks take, of any role: they start with a work item each and end with it.
SmTime time_of_thread_blocks(const KernelLoad& load);

}  // namespace spion
