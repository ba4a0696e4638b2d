// The host's kernels: a thread a work item, rows in the lanes of vector registers (kernels/host/).
#pragma once

#include "codegen/kernel_family.h"

namespace spion {

extern const KernelFamily kHostVectors;

}  // namespace spion
