// Packed tiles: several block rows of the pattern in one tile, which streams the union of their
// blocks. A streamed block then serves all rows that use it, and narrow blocks fill a thread block;
// in return a warp waits while blocks stream past that its own rows do not use, and multiplies one
// granule at a time. Whether that pays is the cost model's to say (compiler/tile_candidates.h).
#pragma once

#include <vector>

#include "compiler/passes/pass.h"

namespace spion {

// Blocks that stream past tiles of `rows` block rows, over those that stream past the rows alone: 1
// where neighbours share nothing, 1 / rows where they share everything, 1 for an empty pattern.
// walked: the pattern as the role walks it.
double streamed_share(const BlockPattern& walked, int rows);

// Block rows a tile that are worth a prediction: powers of 2. None on the host, whose kernels
// compute the block rows of a tile one after another: a core reads a streamed block as often as
// without packing, so that nothing is saved.
std::vector<int> packings(int block, const Target& target);

// `shape`, of tiles within a block row, with tiles of `rows` block rows, multiplied by single
// warps. Throws UserError when `rows` is less than 2, or more than the target's kernels can hold.
TileShape packed_shape(const TileShape& shape, int block, int rows, const Target& target);

// What a packed tile takes on `target`, over what the terms of compiler/cost_model.h add up to; 1
// for one that is not packed. Held against an H200 (docs/journal.md).
double packing_overhead(KernelRole role, int head_dim, const TileShape& shape,
                        const Target& target);

}  // namespace spion
