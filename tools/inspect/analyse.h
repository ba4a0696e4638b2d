// What follows from the facts of a folder: tile programs, their work and predicted time, the
// roofline, and the answers in sentences.
#pragma once

#include <string>
#include <vector>

#include "tools/inspect/facts.h"

namespace spion::inspect {

// Fills programs, ceilings and roofline. The programs of a run are lowered anew for its attention
// and its device; that of a compiled kernel is the one that its IR holds.
void add_programs(Facts& facts);

// What each layer learnt, what was generated for it, and whether it is near the hardware's limit.
std::vector<std::string> find_answers(const Facts& facts);

// The shape of a pattern in words: "the diagonal and column 0 (every query sees tokens 0 to 31)".
std::string describe_pattern(const BlockPattern& pattern);

// How near a rate is that reaches `share` of what the roofline allows, and, unless it is near, what
// the cost model sees in its way: "far from the limit; the model sees it bound by
// latency".
std::string describe_share(double share, Bound bound);

}  // namespace spion::inspect
