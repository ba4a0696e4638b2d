// Packed tiles: several block rows of the pattern in one tile, which streams the union of their
// blocks. A streamed block then serves all rows that use it, and narrow blocks fill a thread block;
// in return a warp waits while blocks stream past that its own rows do not use.
#pragma once

#include "compiler/cost_model.h"

namespace spion {

// Blocks that stream past tiles of `rows` block rows, over those that stream past the rows alone: 1
// where neighbours share nothing, 1 / rows where they share everything, 1 for an empty pattern.
// walked: the pattern as the role walks it.
double streamed_share(const BlockPattern& walked, int rows);

// Block rows a tile that are worth a try: 4 or else 2, as many as four warps hold, where the union
// pays: kMostSharePacked at most of the blocks stream. Above, a tile of `rows` rows has its warps
// wait for half of its blocks or more. 1: none. Nothing has been measured yet, so this only makes
// candidates (compiler/tile_candidates.h) for --explain and for autotuning, which measures.
constexpr double kMostSharePacked = 0.5;
int rows_worth_packing(const BlockPattern& walked);

// `shape`, of tiles within a block row, with tiles of `rows` block rows, which wgmma does not multiply. Throws UserError when
// `rows` is less than 2, or more than the target's kernels can hold.
TileShape packed_shape(const TileShape& shape, int block, int rows, const Target& target);

// As streamed_rows(pattern, role), for tiles of `rows` block rows.
StreamedRows packed_streamed_rows(const BlockPattern& pattern, KernelRole role, int rows);

}  // namespace spion
