// Decides whether the walk is passed as tables (tier 0) or baked into the source (tier 1).
#pragma once

#include "compiler/passes/pass.h"

namespace spion {

TileProgram choose_tables(TileProgram program, const PassContext& context);

}  // namespace spion
