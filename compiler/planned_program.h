// What lowering makes of a plan and launching takes.
#pragma once

#include <array>

#include "codegen/kernel_family.h"
#include "ir/tile_program.h"

namespace spion {

// A program with how its kernel is emitted, loaded and launched.
struct PlannedProgram {
    TileProgram program = {};
    PlannedKernel kernel = {};
};
// The programs of a layer's three launches, by launch_of(role).
using LayerPrograms = std::array<PlannedProgram, 3>;

}  // namespace spion
