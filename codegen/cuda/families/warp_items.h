// A work item a warp, fetched by TMA and multiplied with mma.sync: sm_90a, for tiles too narrow for
// a warpgroup (kernels/cuda/sm90/warp_pipeline.cuh).
#pragma once

#include "codegen/kernel_family.h"

namespace spion {

extern const KernelFamily kWarpItems;

}  // namespace spion
