// The facts as one HTML page: style, script and pictures inside, nothing fetched.
#pragma once

#include <string>

#include "tools/inspect/facts.h"

namespace spion::inspect {

std::string to_html(const Facts& facts);

// Its sections; "" where there is nothing to show.
std::string layers_section(const Facts& facts);
std::string roofline_section(const Facts& facts);
std::string kernels_section(const Facts& facts);

}  // namespace spion::inspect
