#include "compiler/passes/set_shape.h"

#include <algorithm>

#include "compiler/lower.h"

namespace spion {

TileProgram set_shape(TileProgram program, const PassContext& context) {
    const TileShape& shape = context.shape;
    program.stationary_rows = std::min(shape.stationary_rows, program.block);
    program.streamed_rows = shape.streamed_rows;
    program.granule = std::min(shape.granule, program.block);
    // Warps of the rows that are left, 16 each.
    program.warps =
        shape.stationary_rows > program.block ? program.stationary_rows / 16 : shape.warps;
    program.stages = shape.stages;
    program.unit =
        shape.wgmma ? MatrixUnit::kWgmma : matrix_unit(program.attention.dtype, context.target);
    return program;
}

}  // namespace spion
