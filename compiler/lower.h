// BlockPattern -> TileProgram: picks the tiles' shape for a target, then runs the passes of
// compiler/passes/pipeline.cpp on the seed program.
#pragma once

#include <cstdint>
#include <optional>

#include "compiler/passes/pipeline.h"
#include "ir/attention.h"
#include "ir/block_pattern.h"
#include "ir/target.h"
#include "ir/tile_program.h"

namespace spion {

// Which unit multiplies tiles of `dtype` on `target`, unless a shape asks for wgmma.
MatrixUnit matrix_unit(DType dtype, const Target& target);

// What the passes start from: the operation and the block, no tiles, no walk.
TileProgram seed_program(const Attention& attention, const BlockPattern& pattern, KernelRole role);

// B where nobody has said one: see compiler/tile_candidates.h.
constexpr std::int64_t kPlannedBatch = 32;

struct LowerOptions {
    std::optional<TileShape> shape = {};  // nothing: what the cost model chooses
    // Block rows a tile (compiler/packing.h), where no shape is given; nothing: what the cost model
    // chooses for the pattern.
    std::optional<int> packed_rows = {};
    std::int64_t batch = kPlannedBatch;  // B that packing is weighed for
    Tables tables = Tables::kPassed;
    PassObserver observer = {};  // called after each pass
    VerifyPasses verify_passes = kVerifyPassesByDefault;
};

// The result satisfies verify(program, pattern). Throws UserError when the pattern's length is not
// the attention's, when `attention` fails check(), when no tile fits the target's shared memory, or
// when so many packed rows do not.
TileProgram lower(const Attention& attention, const BlockPattern& pattern, KernelRole role,
                  const Target& target, const LowerOptions& options = {});
// The same with tiles of `shape`.
TileProgram lower(const Attention& attention, const BlockPattern& pattern, KernelRole role,
                  const Target& target, const TileShape& shape);

}  // namespace spion
