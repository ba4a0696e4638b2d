// The walk of a tile program as a kernel reads it: one block of int32 numbers, whose size depends
// on what the program's shape and the pattern's number of blocks allow, never on the pattern.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "ir/tile_program.h"
#include "kernels/attention_arguments.h"

namespace spion {

// Where each table starts, in numbers from the block's start; each at a multiple of 16 bytes.
struct WalkTables {
    std::int64_t order = 0;            // [tiles]
    std::int64_t offsets = 0;          // [tiles + 1]
    std::int64_t gather_blocks = 0;    // [capacity]
    std::int64_t block_row_masks = 0;  // [capacity] of packed programs, else the end
    // [capacity] of kGradients (compiler/launch/dq_schedule.h), else the end
    std::int64_t tickets = 0;
    std::int64_t capacity = 0;  // gather blocks that a walk has at most
    std::int64_t size = 0;      // numbers of the block, at least 1
};

// The layout of tables for programs with the shape of `program` and walks of at most `capacity`
// gather blocks.
WalkTables walk_tables(const TileProgram& program, std::int64_t capacity);

// Gather blocks of a walk of the program's shape over a pattern of `blocks` blocks, at most: a
// block is walked by each tile of its row, gather block by gather block. The program's gather
// blocks must not be longer than its blocks.
std::int64_t most_gather_blocks(const TileProgram& program, std::int64_t blocks);

// Fills the block, what no table needs with zeros. SMs: of the target, for kGradients, whose
// gather blocks are written in the order of the schedule. Throws InternalError when the walk is
// longer than the capacity or `block` is not of the tables' size.
void write_walk(const TileProgram& program, const WalkTables& tables, int sm_count,
                std::span<std::int32_t> block);

// Points the arguments at the block.
void point_at(const std::int32_t* block, const WalkTables& tables, SpionAttentionArguments& args);

}  // namespace spion
