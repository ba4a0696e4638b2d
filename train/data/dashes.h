// The strokes that Pathfinder's pictures are made of: dashes and discs, drawn at twice the size and
// reduced by Lanczos' kernel, as the published generator does.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "train/data/pathfinder_generator.h"

namespace spion::dashes {

constexpr int kEdge = kPathfinderEdge;

using Plane = std::array<float, kEdge * kEdge>;  // values from 0 to 1

struct Point {
    int row = 0, column = 0;
};

inline bool inside(Point p) {
    return p.row >= 0 && p.row < kEdge && p.column >= 0 && p.column < kEdge;
}
inline std::size_t at(Point p) {
    return static_cast<std::size_t>(p.row * kEdge + p.column);
}

// What a dash leaves around its first point: ink, and the footprint that others keep out of, which
// is wider by a margin of 1 pixel on every side.
struct Cell {
    int row = 0, column = 0;
    float ink = 0, footprint = 0;
};
using Dash = std::vector<Cell>;

// From one point to another, at most 4 rows and columns away: drawn once a difference.
const Dash& dash_between(Point from, Point to);

// A disc of radius 1.5 and height 1.
Plane disc_at(Point middle);

}  // namespace spion::dashes
