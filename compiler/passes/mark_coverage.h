// Says of every gather block whether all its elements count or a kernel has to ask which do
// (Coverage), for the emitter and the reader.
#pragma once

#include "compiler/passes/pass.h"

namespace spion {

TileProgram mark_coverage(TileProgram program, const PassContext& context);

}  // namespace spion
