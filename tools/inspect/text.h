// The facts for a terminal: answers, sparkline curves, patterns as art, kernels in a table.
#pragma once

#include <span>
#include <string>

#include "tools/inspect/facts.h"

namespace spion::inspect {

// columns: of a pattern's picture, at most.
std::string to_text(const Facts& facts, int columns);

// Text of others in a terminal: no escape sequences.
std::string printable_text(std::string text);

// Values as bars of eighths, `width` characters at most (means of neighbours when there are more).
std::string sparkline(std::span<const double> values, int width = 64);

}  // namespace spion::inspect
