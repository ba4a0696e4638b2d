// What a kernel computes, in the words of reports and pages.
#pragma once

#include <string_view>

#include "ir/tile_program.h"

namespace spion {

// "forward", "dQ", "dK and dV", "delta" or "all gradients"
std::string_view results_of(KernelRole role);

}  // namespace spion
