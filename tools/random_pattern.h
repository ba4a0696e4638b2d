// Patterns to measure and test with, when no training has found one yet.
#pragma once

#include <cstdint>

#include "ir/block_pattern.h"

namespace spion {

// The diagonal, plus as many other blocks as give `density` of all nb * nb blocks, half by chance
// and half by columns that are popular as a whole: the mix of diagonal and vertical stripes that
// discovery finds. A density below the diagonal's gives the diagonal, 1 gives every block. The same
// seed gives the same pattern on every machine. Throws UserError for a density outside [0, 1].
BlockPattern random_pattern(std::int64_t length, int block, double density, std::uint64_t seed);

}  // namespace spion
