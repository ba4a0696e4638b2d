// The table of kernel families. A new one is a value in a file of its own and a line here.
#pragma once

#include "codegen/kernel_family.h"

namespace spion {

// The families, in the order in which they are asked for a shape: the special ones first.
KernelFamilies kernel_families();

}  // namespace spion
