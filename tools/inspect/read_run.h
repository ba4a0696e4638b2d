// A folder of `spion train` or `spion compile` -> Facts, without what is computed from them
// (analyse.h).
#pragma once

#include <filesystem>

#include "tools/inspect/facts.h"

namespace spion::inspect {

// Reads what is there and names in Facts::absent what is not. Throws UserError when the folder is
// neither a run nor holds compiled kernels, and when a file in it is damaged (which, and where).
Facts read_folder(const std::filesystem::path& folder);

// The patterns that a program covers, as many as its attention has. The inverse of lowering; requires
// that block edges are those of the patterns; those of programs in blocks of 256 get blocks of 128.
HeadPatterns patterns_of(const TileProgram& program);

}  // namespace spion::inspect
