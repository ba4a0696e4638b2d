// Starts the longest work items first, so that the last ones to start are short; equal lengths keep
// ascending tile order, in which neighbours share streamed rows in cache. The order is that of one
// (batch, head): a launch goes through them one after the other, so that work items that run at the
// same time read the same K and V.
#pragma once

#include "compiler/passes/pass.h"

namespace spion {

TileProgram order_work(TileProgram program, const PassContext& context);

}  // namespace spion
