// The text form of the IR (docs/ir.md) read back. Parsing and printing are inverse: print(parse(x))
// == x for everything the compiler makes, parse(print(p)) == p.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ir/attention.h"
#include "ir/block_pattern.h"
#include "ir/head_patterns.h"
#include "ir/score_summary_program.h"
#include "ir/step_program.h"
#include "ir/tile_program.h"
#include "ir/verify.h"

namespace spion {

// What a file of IR holds. A file to compile by hand has an attention and a pattern; a kernel's
// kernel.ir holds one program, of attention (`programs`) or another.
struct IrModule {
    std::optional<Attention> attention;
    std::optional<HeadPatterns> pattern;  // as many as the attention has
    std::vector<TileProgram> programs;
    std::vector<ScoreSummaryProgram> summaries = {};
    std::vector<StepProgram> steps = {};

    bool has_programs() const { return !programs.empty() || !summaries.empty() || !steps.empty(); }
    friend bool operator==(const IrModule&, const IrModule&) = default;
};

// Reads and verifies. `origin` names the text in errors. Throws UserError "origin:line:column: what
// is wrong, what was expected", with the line and a caret below it; also for IR that does not
// verify (attention out of range, a program that breaks a rule, one that does not cover the
// module's pattern or, where `completeness` asks for it, is not finished).
IrModule parse_ir(std::string_view text, std::string_view origin,
                  Completeness completeness = Completeness::kAny);

// attention line, a section of each pattern, programs, those of attention first; what is absent is left out.
std::string to_text(const IrModule& ir);

}  // namespace spion
