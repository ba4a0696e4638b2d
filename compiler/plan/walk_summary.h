// The sums of a walk over a pattern that the cost model needs: rows, steps and passes, counted from
// the pattern and a shape, before lowering, or from a lowered program.
#pragma once

#include <cstdint>
#include <vector>

#include "codegen/kernel_cost.h"
#include "ir/head_patterns.h"
#include "ir/tile_program.h"

namespace spion {

// What a kernel's role makes of a pattern before a shape is known.
struct StreamedRows {
    std::vector<std::int64_t> stationary;  // [tiles]: rows of the sequence in tile i
    std::vector<std::int64_t> streamed;    // [tiles]: rows that stream past it
    std::int64_t distinct = 0;             // rows that stream past any
    int packed_rows = 1;                   // block rows (columns) of a tile
    std::vector<std::int64_t> used = {};   // [nb]: rows that a block row uses, of packed tiles
    std::int64_t heads = 1;                // patterns that all this is summed over
};
// A tile is one block row, or column, or `packed_rows` of them on the union of their blocks.
StreamedRows streamed_rows(const HeadPatterns& patterns, KernelRole role, int packed_rows = 1);

WalkSummary summarise(const StreamedRows& rows, const TileShape& shape, int columns);
WalkSummary summarise(const TileProgram& program, int columns);

}  // namespace spion
