// Pictures as SVG text. Colours come from classes that page.css defines, so that a picture follows
// the reader's light or dark setting.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ir/block_pattern.h"
#include "ir/tile_program.h"
#include "tools/inspect/facts.h"

namespace spion::inspect {

// Colours of runs that are compared, classes run0 and so on.
inline constexpr std::size_t kRunColours = 8;

// For HTML text and attribute values. Bytes that HTML forbids become U+FFFD.
std::string escape(std::string_view text);

struct Series {
    std::string name;
    std::string style;                              // class: "train", "validation", ..
    std::vector<std::pair<double, double>> points;  // x ascending
    bool dots = false;                              // a mark at each point
};

struct Chart {
    std::string title;   // said to screen readers
    std::string y_unit;  // "", "%", "ms"
    std::vector<Series> series;
    double mark_x = -1;     // a vertical line there, when >= 0
    std::string mark = {};  // its text
};
// Values that are not finite are left out. Long series are drawn as means of neighbours.
std::string line_chart(const Chart& chart);

// Both [nb, nb], a unit a block, the first row on top.
std::string pattern_picture(const BlockPattern& pattern);
std::string pooled_picture(std::span<const double> pooled, int blocks);

// The pattern covered by the program's tiles: a rectangle a step of a work item, coloured by when
// the work starts, the position in the order beside it where there is room.
std::string program_picture(const TileProgram& program, int pattern = 0);

// FLOP/s over FLOP/byte, both logarithmic, with the ceilings.
std::string roofline_picture(const Ceilings& ceilings, std::span<const RooflinePoint> points);

// Shares of a whole, side by side: name, style, value.
struct Share {
    std::string name, style;
    double value = 0;
};
// `whole`: the value that the full width stands for.
std::string bar(std::span<const Share> shares, double whole);

}  // namespace spion::inspect
