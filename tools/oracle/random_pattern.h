// Patterns to measure and test with, when no training has found one yet.
#pragma once

#include <cstdint>

#include "ir/block_pattern.h"

namespace spion {

// The diagonal, plus as many other blocks as give `density` of all nb * nb blocks, half by chance
// and half by columns that are popular as a whole: the mix of diagonal and vertical stripes that
// discovery finds. A density below the diagonal's gives the diagonal, 1 gives every block. The same
// seed gives the same pattern on every machine. Throws UserError for a density outside [0, 1].
// key_length: 0 for as many keys as queries; else the diagonal ends at the last key.
BlockPattern random_pattern(std::int64_t length, int block, double density, std::uint64_t seed,
                            std::int64_t key_length = 0);

// What training finds for many layers, in its plain form: a band of `band` blocks around the
// diagonal (odd; 0 for none) and `stripes` whole block columns, drawn by the seed. Neighbouring
// rows share nearly everything. Throws UserError for values that do not fit the pattern.
// key_length: as above.
BlockPattern striped_pattern(std::int64_t length, int block, int band, int stripes,
                             std::uint64_t seed, std::int64_t key_length = 0);

}  // namespace spion
