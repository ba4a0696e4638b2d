// metrics.csv read back (train/metrics.h writes it).
#pragma once

#include <filesystem>
#include <string_view>
#include <vector>

#include "tools/inspect/facts.h"

namespace spion::inspect {

// Columns are found by the names in the first line; step, phase, split, loss and accuracy are
// needed. A last line without a newline is a row that a dying process has not finished: left out.
// Throws UserError "origin:line: what is wrong" for anything else.
std::vector<Measurement> parse_metrics(std::string_view text, std::string_view origin);

}  // namespace spion::inspect
