// The tile of discovery's score summary.
#pragma once

#include "ir/attention.h"
#include "ir/target.h"

namespace spion {

// As large as the block, 64 and the target's shared memory allow. Throws UserError when not even 16
// rows fit.
int choose_summary_tile(const Attention& attention, int block, const Target& target);

}  // namespace spion
