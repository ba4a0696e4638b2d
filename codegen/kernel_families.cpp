#include "codegen/kernel_families.h"

#include "codegen/cuda/families/fused_backward.h"
#include "codegen/cuda/families/mma_sync.h"
#include "codegen/cuda/families/warp_items.h"
#include "codegen/cuda/families/wgmma.h"
#include "codegen/llvm/host_vectors.h"

namespace spion {
namespace {

constexpr const KernelFamily* kFamilies[] = {&kWgmma, &kWarpItems, &kFusedBackward, &kMmaSync,
                                             &kHostVectors};

}  // namespace

KernelFamilies kernel_families() {
    return kFamilies;
}

}  // namespace spion
