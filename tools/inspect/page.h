// The facts as one HTML page: style, script and pictures inside, nothing fetched.
#pragma once

#include <string>
#include <string_view>

#include "tools/inspect/facts.h"
#include "tools/inspect/svg.h"

namespace spion::inspect {

std::string to_html(const Facts& facts);

// What every page begins and ends with: title, what it shows, the device.
std::string page_begin(std::string_view name, std::string_view kind, std::string_view device);
std::string page_end();

// A chart with its legend, and a picture with a line above and one below.
std::string chart_figure(const Chart& chart);
std::string map_figure(std::string_view title, const std::string& svg, const std::string& note);

// Its sections; "" where there is nothing to show.
std::string layers_section(const Facts& facts);
std::string roofline_section(const Facts& facts);
std::string kernels_section(const Facts& facts);

}  // namespace spion::inspect
