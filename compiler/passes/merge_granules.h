// Makes granules of several adjacent blocks, so that a step gathers fewer pieces. Runs only where
// the shape asks for granules larger than a block, and only as far as every block row's blocks come
// in whole aligned groups: a merged granule must hold nothing outside the pattern.
#pragma once

#include "compiler/passes/pass.h"

namespace spion {

TileProgram merge_granules(TileProgram program, const PassContext& context);

}  // namespace spion
