// A program's walk as constants of its CUDA source.
#pragma once

#include <string>

#include "ir/tile_program.h"

namespace spion {

// What kernels/cuda/common/work_item.cuh reads in place of its arguments' tables.
std::string baked_cuda(const TileProgram& program);

}  // namespace spion
