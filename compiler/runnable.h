// What the kernels' bodies can do of what the IR can say. The compiler makes only such programs;
// one that was written by hand may be verified and yet be for another target, or for none.
#pragma once

#include <string>

#include "ir/target.h"
#include "ir/tile_program.h"

namespace spion {

// Why `target` cannot run the program, and what to change ("it has warps=9: take 8 at most"); ""
// when it can. Requires a finished program that verifies, and that this build has the back end.
std::string why_not_runnable(const TileProgram& program, const Target& target);

}  // namespace spion
