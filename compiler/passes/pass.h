// What a pass is: one free function that takes a program and returns the program with one more
// thing decided. The table of all of them is compiler/passes/pipeline.cpp.
#pragma once

#include <string_view>

#include "ir/head_patterns.h"
#include "ir/target.h"
#include "ir/tile_program.h"

namespace spion {

// What passes may know besides the program. The references outlive the pipeline's run.
struct PassContext {
    const HeadPatterns& pattern;  // as the attention has them
    const HeadPatterns& walked;   // as the role walks them: transposed where it walks columns
    const Target& target;
    TileShape shape;  // the cost model's choice
    Tables tables = Tables::kPassed;
};

using PassFunction = TileProgram (*)(TileProgram, const PassContext&);

struct Pass {
    std::string_view name;
    PassFunction run;
    std::string_view establishes;
};

}  // namespace spion
