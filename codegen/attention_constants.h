// What the bodies of every back end know of an operation.
#pragma once

#include <vector>

#include "codegen/kernel_constant.h"
#include "ir/attention.h"
#include "ir/tile_program.h"

namespace spion {

// Lengths, softmax, mask and changes of scores: all but heads, widths and dtype, which each back end
// says in its own way. `blocks`: of the walk, see block_coverage().
std::vector<Constant> operation_constants(const Attention& attention, Coverage blocks);

}  // namespace spion
