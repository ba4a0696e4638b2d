// How large a problem may be, for whoever multiplies sizes that a user gave.
#pragma once

#include <cstdint>

#include "ir/attention.h"

namespace spion {

// Of B * H * L, the query rows of a problem: tiles of 16 rows are counted with 32 bits.
constexpr std::int64_t kMaxRows = std::int64_t{16} << 31;

// Throws UserError unless B is at least 1 and B * H * L at most kMaxRows, which leaves every
// product with the elements of a row and their bytes far from 2^63. `attention` has passed check().
void check_batch(const Attention& attention, std::int64_t batch);

// Throws UserError unless the diagonal filter of a score summary (compiler/discovery) is 1 to
// 2 * block + 1 wide: each tile adds to those beside it alone.
void check_summary_filter(int filter, int block);

}  // namespace spion
