// What parse_ir is made of: each reads its lines from where the reader stands and verifies them.
#pragma once

#include <optional>

#include "ir/attention.h"
#include "ir/head_patterns.h"
#include "ir/text_reader.h"
#include "ir/tile_program.h"
#include "ir/verify.h"

namespace spion {

// "attention H=..."
Attention read_attention(TextReader& reader);

// A section "pattern L=<length> block=<edge>" for each pattern of a layer.
HeadPatterns read_patterns(TextReader& reader);

// A program of attention after the line with its `role`, `line`, where the program begins. `pattern`
// is the module's, which the walk is held against.
TileProgram read_tile_program(TextReader& reader, KernelRole role, int line,
                              const std::optional<HeadPatterns>& pattern,
                              Completeness completeness);

}  // namespace spion
