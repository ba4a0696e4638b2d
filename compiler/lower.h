// BlockPattern -> TileProgram: picks tile shapes for a target and turns the pattern into a walk.
#pragma once

#include "ir/attention.h"
#include "ir/block_pattern.h"
#include "ir/target.h"
#include "ir/tile_program.h"

namespace spion {

// The result satisfies verify(program, pattern). Throws UserError when the pattern's length is not
// the attention's, when `attention` fails check(), or when no tile fits the target's shared memory.
TileProgram lower(const Attention& attention, const BlockPattern& pattern, KernelRole role,
                  const Target& target);

}  // namespace spion
