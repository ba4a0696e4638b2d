// Starts the longest work items first, so that the last ones to start are short; equal lengths keep
// ascending tile order, in which neighbours share streamed rows in cache.
#pragma once

#include "compiler/passes/pass.h"

namespace spion {

TileProgram order_work(TileProgram program, const PassContext& context);

}  // namespace spion
