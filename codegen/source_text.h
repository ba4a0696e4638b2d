// What the sources of both back ends have alike: a name, and the IR as a comment.
#pragma once

#include <string>
#include <string_view>

#include "ir/tile_program.h"

namespace spion {

// "attention_forward-b64-D64-bf16-masked", then "-packed" and "-baked" where the program is so.
std::string source_name(const TileProgram& program);

// The program's text without its walk. Where the walk is passed as tables, the source names only what
// shapes the code, so that layers whose patterns differ share one kernel.
std::string text_without_walk(const TileProgram& program);

// The lines, each behind `mark`: "// ".
std::string comment_of(std::string_view lines, std::string_view mark);

}  // namespace spion
