// Lists, for every stationary tile in ascending order, the gather blocks of its block row's blocks.
// Throws UserError when there are more than 32 bits can number.
#pragma once

#include "compiler/passes/pass.h"

namespace spion {

TileProgram walk_pattern(TileProgram program, const PassContext& context);

}  // namespace spion
