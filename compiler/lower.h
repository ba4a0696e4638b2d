// BlockPattern -> TileProgram: picks tile shapes for a target and turns the pattern into a walk.
#pragma once

#include <cstdint>

#include "ir/attention.h"
#include "ir/block_pattern.h"
#include "ir/target.h"
#include "ir/tile_program.h"

namespace spion {

// The tile of one kernel on one target.
struct TileShape {
    int stationary_rows;
    int streamed_rows;
    int granule;
    int warps;
    int stages;
    friend bool operator==(const TileShape&, const TileShape&) = default;
};

// Upper bound of the shared memory that a CUDA body needs for `shape`: every tile of the role with
// rows padded by 16 bytes, and a row's LSE and delta.
std::int64_t shared_bytes(KernelRole role, DType dtype, int head_dim, const TileShape& shape);

// CUDA: stationary rows are the block, 64 at most, 16 a warp. Streamed rows are as many as leave a
// thread's accumulators in registers (64, or 32 where operands are wide), then as many, and as many
// stages, as fit the target's shared memory: stages go from 2 to 1 before rows are halved, down to
// 16. Host: the block, 64 at most, both ways. Throws UserError when nothing fits.
TileShape choose_tile_shape(KernelRole role, DType dtype, int head_dim, int block,
                            const Target& target);

// Which unit multiplies tiles of `dtype` on `target`.
MatrixUnit matrix_unit(DType dtype, const Target& target);

// The result satisfies verify(program, pattern). Throws UserError when the pattern's length is not
// the attention's, when `attention` fails check(), or when no tile fits the target's shared memory.
TileProgram lower(const Attention& attention, const BlockPattern& pattern, KernelRole role,
                  const Target& target);
// The same with tiles of `shape`, whatever the target.
TileProgram lower(const Attention& attention, const BlockPattern& pattern, KernelRole role,
                  const TileShape& shape);

}  // namespace spion
