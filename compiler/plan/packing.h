// Packed tiles: several block rows of the pattern in one tile, which streams the union of their
// blocks. A streamed block then serves all rows that use it, and narrow blocks fill a thread block;
// in return a warp waits while blocks stream past that its own rows do not use, and multiplies one
// gather block at a time. Whether that pays is the cost model's to say.
#pragma once

#include <vector>

#include "codegen/kernel_family.h"
#include "compiler/plan/tile_candidates.h"
#include "ir/block_pattern.h"

namespace spion {

// Blocks that stream past tiles of `rows` block rows, over those that stream past the rows alone: 1
// where neighbours share nothing, 1 / rows where they share everything, 1 for an empty pattern.
// walked: the pattern as the role walks it.
double streamed_share(const HeadPatterns& walked, int rows);

// Block rows a tile that are worth a prediction: powers of 2. None where no family can save anything
// by it, as on the host, whose kernels compute the block rows of a tile one after another.
std::vector<int> packings(const KernelCase& launch, KernelFamilies families);

// Throws UserError when `rows`, of a tile, is less than 2, or more than the target's kernels can
// hold.
void require_packable(const KernelCase& launch, int rows, KernelFamilies families);

// The packed candidate that is predicted fastest; nullptr when there is none that can run.
const TileCandidate* best_packed(const std::vector<TileCandidate>& candidates);

// Whether packed tiles are predicted to be faster than `plain`, the winner on the typical pattern, by
// more than kMargin, and no slower than any tile that is not packed.
bool packing_pays(const std::vector<TileCandidate>& candidates, const TileShape& plain);

}  // namespace spion
