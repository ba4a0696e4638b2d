// Break-even curves: the time of attention against the density of its pattern, for each block.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

namespace spion {

// Forward and backward on a random pattern.
struct CurvePoint {
    int block = 0;
    double density = 0;  // of the pattern's blocks; 1: all of them
    double forward_ms = 0, backward_ms = 0;

    double both_ms() const { return forward_ms + backward_ms; }
};

// The points of a block, by density.
std::vector<CurvePoint> curve_of(std::span<const CurvePoint> points, int block);

// The fastest attention on all blocks: the line that curves are held against. Throws UserError when
// no point has density 1.
double dense_ms(std::span<const CurvePoint> points);

// The density up to which the block's attention is faster than `dense`, between two points by a
// straight line; 1 when all below 1 are, nothing when none is.
std::optional<double> break_even(std::span<const CurvePoint> points, int block, double dense);

// A picture of its own: forward and backward together, the dense line dashed.
std::string curve_picture(std::span<const CurvePoint> points, const std::string& title);

}  // namespace spion
