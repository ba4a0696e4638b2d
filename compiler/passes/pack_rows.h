// Puts several block rows into one stationary tile, on the union of their gather blocks, with bits
// that say which row uses which: narrow blocks fill the matrix unit where neighbours share keys.
// Runs only where the shape asks for more stationary rows than a block has.
#pragma once

#include "compiler/passes/pass.h"

namespace spion {

TileProgram pack_rows(TileProgram program, const PassContext& context);

}  // namespace spion
