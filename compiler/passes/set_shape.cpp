#include "compiler/passes/set_shape.h"

#include <algorithm>

namespace spion {

TileProgram set_shape(TileProgram program, const PassContext& context) {
    const TileShape& shape = context.shape;
    program.stationary_rows = std::min(shape.stationary_rows, program.block);
    program.streamed_rows = shape.streamed_rows;
    program.gather_rows = std::min(shape.gather_rows, program.block);
    // Warps of the rows that are left, 16 each.
    program.warps = shape.stationary_rows > program.block && shape.unit != MatrixUnit::kMmaSyncTma
                        ? program.stationary_rows / 16
                        : shape.warps;
    program.stages = shape.stages;
    program.unit = shape.unit;
    return program;
}

}  // namespace spion
