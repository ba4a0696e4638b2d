// The rules of ir/tile_program.h as findings, for the parser and the passes.
#pragma once

#include <optional>
#include <string>

#include "ir/block_pattern.h"
#include "ir/head_patterns.h"
#include "ir/score_summary_program.h"
#include "ir/step_program.h"
#include "ir/tile_program.h"

namespace spion {

// A broken rule and where.
struct Fault {
    std::string rule;
    int item = -1;  // the work item, or -1 when the rule is about the whole program
};

// A program that passes are still making has no tiles (stationary_rows == 0), or tiles and no walk
// (order empty).
enum class Completeness { kAny, kFinished };

// The first broken rule, if any, of what the program has so far; that it is not finished is a fault
// where `completeness` asks for that. patterns: as the program's attention has them (not
// transposed), or null when unknown.
std::optional<Fault> find_fault(const TileProgram& program, const HeadPatterns* patterns,
                                Completeness completeness = Completeness::kAny);
// The rules of ir/score_summary_program.h and ir/step_program.h; `item` is -1.
std::optional<Fault> find_fault(const ScoreSummaryProgram& program);
std::optional<Fault> find_fault(const StepProgram& program);

// Throws InternalError that names the broken rule.
void verify(const ScoreSummaryProgram& program);

}  // namespace spion
