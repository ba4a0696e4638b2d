// Moves the offset of attention's dropout on, where the state lies (kernels/dropout_arguments.h).
#pragma once

#include "codegen/emit.h"
#include "ir/target.h"
#include "runtime/device.h"

namespace spion {

// The same for every operation.
KernelSource advance_dropout_source(const Target& target);

LaunchGeometry advance_dropout_geometry();

}  // namespace spion
