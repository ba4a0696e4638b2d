// Gives the program the tiles that the cost model chose, within one block: a stationary tile does
// not reach beyond its block row nor a gather block beyond its block; pack_rows and
// merge_gather_blocks widen them where the shape asks for it.
#pragma once

#include "compiler/passes/pass.h"

namespace spion {

TileProgram set_shape(TileProgram program, const PassContext& context);

}  // namespace spion
