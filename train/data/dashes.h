// The strokes that Pathfinder's pictures are made of: dashes and discs, drawn at about twice the size
// and reduced by Lanczos' kernel to bytes, as the published generator does.
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
// is wider by a margin of 1 pixel on every side. Both are multiples of 1/255.
struct Cell {
    int row = 0, column = 0;
    float ink = 0, footprint = 0;
};
using Dash = std::vector<Cell>;  // the cells where one of them is not 0

constexpr int kReach = 4;  // rows and columns of a dash's cells from its first point, at most

// Two pixels long, at an angle in radians: a step of d towards it adds (d sin, d cos) to (row,
// column). Drawn once for each end that it can have at the finer size.
const Dash& dash_towards(double angle);

// A disc of radius 1.5 and height 1.
Plane disc_at(Point middle);

}  // namespace spion::dashes
