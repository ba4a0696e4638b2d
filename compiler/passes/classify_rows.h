// Says of every work item what its gather blocks look like (RowClass), for the emitter and the
// reader.
#pragma once

#include "compiler/passes/pass.h"

namespace spion {

TileProgram classify_rows(TileProgram program, const PassContext& context);

}  // namespace spion
