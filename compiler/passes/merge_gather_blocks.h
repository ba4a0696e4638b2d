// Makes gather blocks of several adjacent blocks, so that a step gathers fewer pieces. Runs only
// where the shape asks for gather blocks larger than a block, and only as far as every block row's
// blocks come in whole aligned groups: a merged gather block must hold nothing outside the pattern.
#pragma once

#include "compiler/passes/pass.h"

namespace spion {

TileProgram merge_gather_blocks(TileProgram program, const PassContext& context);

}  // namespace spion
