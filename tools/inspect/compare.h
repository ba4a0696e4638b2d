// Two or more training runs beside each other.
#pragma once

#include <span>
#include <string>

#include "tools/inspect/facts.h"

namespace spion::inspect {

// One page, like to_html's, and the same as text. Runs are named by what tells their paths apart.
std::string compare_html(std::span<const Facts> runs);
std::string compare_text(std::span<const Facts> runs);

}  // namespace spion::inspect
