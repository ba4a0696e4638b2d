#include "train/data/dashes.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numbers>

namespace spion::dashes {
namespace {

constexpr int kScale = 2;                      // strokes are drawn at twice the size
constexpr int kDashEdge = 2 * kReach + 1;      // of the square that a dash is drawn in
constexpr int kFineReach = kScale * kReach;    // the same square at the finer size
constexpr int kFineEdge = 2 * kFineReach + 1;  // (a factor of 17/9 then)
constexpr int kFineLength = 2 * kScale, kFineMargin = 1 * kScale;
constexpr double kMarkerRadius = 1.5;

// A square picture of `edge` rows and columns.
struct Square {
    explicit Square(int edge_of) : edge(edge_of), values(static_cast<std::size_t>(edge * edge)) {}
    float& at(int row, int column) { return values[static_cast<std::size_t>(row * edge + column)]; }
    int edge;
    std::vector<float> values;
};

// Weights of Lanczos' kernel (three lobes) that reduce `fine` samples to one of `coarse`.
struct Tap {
    int first = 0;
    std::vector<float> weights;
};
std::vector<Tap> taps(int fine, int coarse) {
    constexpr double kLobes = 3;
    const auto sinc = [](double x) {
        return x == 0 ? 1.0 : std::sin(std::numbers::pi * x) / (std::numbers::pi * x);
    };
    const double scale = static_cast<double>(fine) / coarse, support = kLobes * scale;
    std::vector<Tap> all(static_cast<std::size_t>(coarse));
    for (int i = 0; i < coarse; ++i) {
        const double centre = (i + 0.5) * scale;
        const int end = std::min(fine, static_cast<int>(centre + support + 0.5));
        Tap& tap = all[static_cast<std::size_t>(i)];
        tap.first = std::max(0, static_cast<int>(centre - support + 0.5));
        std::vector<double> weights;
        double sum = 0;
        for (int x = tap.first; x < end; ++x) {
            const double d = (x - centre + 0.5) / scale;
            weights.push_back(std::abs(d) < kLobes ? sinc(d) * sinc(d / kLobes) : 0);
            sum += weights.back();
        }
        for (const double weight : weights) tap.weights.push_back(static_cast<float>(weight / sum));
    }
    return all;
}

// The picture is one of bytes after either pass: values are cut to [0, 1] and rounded.
float as_byte(float value) {
    constexpr float kMost = 255;
    return std::round(std::clamp(value, 0.0F, 1.0F) * kMost) / kMost;
}

Square reduced(const Square& fine, int coarse) {
    const std::vector<Tap> all = taps(fine.edge, coarse);
    const auto value = [](const Square& from, int row, int column) {
        return from.values[static_cast<std::size_t>(row * from.edge + column)];
    };
    Square narrow(fine.edge), result(coarse);  // narrow: only `coarse` of its columns are used
    for (int row = 0; row < fine.edge; ++row) {
        for (int column = 0; column < coarse; ++column) {
            const Tap& tap = all[static_cast<std::size_t>(column)];
            float sum = 0;
            for (std::size_t k = 0; k < tap.weights.size(); ++k) {
                sum += tap.weights[k] * value(fine, row, tap.first + static_cast<int>(k));
            }
            narrow.at(row, column) = as_byte(sum);
        }
    }
    for (int row = 0; row < coarse; ++row) {
        const Tap& tap = all[static_cast<std::size_t>(row)];
        for (int column = 0; column < coarse; ++column) {
            float sum = 0;
            for (std::size_t k = 0; k < tap.weights.size(); ++k) {
                sum += tap.weights[k] * value(narrow, tap.first + static_cast<int>(k), column);
            }
            result.at(row, column) = as_byte(sum);
        }
    }
    return result;
}

void draw_disc(Square& fine, int row, int column, double radius) {
    const int reach = static_cast<int>(std::ceil(radius));
    for (int r = std::max(-reach, -row); r <= std::min(reach, fine.edge - 1 - row); ++r) {
        for (int c = std::max(-reach, -column); c <= std::min(reach, fine.edge - 1 - column); ++c) {
            if (r * r + c * c <= radius * radius) fine.at(row + r, column + c) = 1;
        }
    }
}

// A line of width 1 (Bresenham's) from the middle to `rows`, `columns` away; its footprint is the
// line dilated by a disc.
Dash draw_dash(int rows, int columns) {
    Square line(kFineEdge), wide(kFineEdge);
    const int longer = std::max(std::abs(rows), std::abs(columns));
    const int shorter = std::min(std::abs(rows), std::abs(columns));
    const bool by_columns = std::abs(columns) > std::abs(rows);
    int across = 0, error = 2 * shorter - longer;
    for (int along = 0; along <= longer; ++along) {
        const int row = kFineReach + (by_columns ? across : along) * (rows < 0 ? -1 : 1);
        const int column = kFineReach + (by_columns ? along : across) * (columns < 0 ? -1 : 1);
        line.at(row, column) = 1;
        draw_disc(wide, row, column, kFineMargin);
        if (error >= 0 && shorter > 0) {
            ++across;
            error -= 2 * longer;
        }
        error += 2 * shorter;
    }
    Square ink = reduced(line, kDashEdge), footprint = reduced(wide, kDashEdge);
    Dash dash;
    for (int row = 0; row < kDashEdge; ++row) {
        for (int column = 0; column < kDashEdge; ++column) {
            const Cell cell{row - kReach, column - kReach, ink.at(row, column),
                            footprint.at(row, column)};
            if (cell.ink > 0 || cell.footprint > 0) dash.push_back(cell);
        }
    }
    return dash;
}

}  // namespace

const Dash& dash_towards(double angle) {
    constexpr int kSpan = 2 * kFineLength + 1;
    static const std::vector<Dash> drawn = [] {
        std::vector<Dash> all;
        for (int i = 0; i < kSpan * kSpan; ++i) {
            all.push_back(draw_dash(i / kSpan - kFineLength, i % kSpan - kFineLength));
        }
        return all;
    }();
    const int row = static_cast<int>(std::ceil(kFineLength * std::sin(angle))) + kFineLength;
    const int column = static_cast<int>(std::ceil(kFineLength * std::cos(angle))) + kFineLength;
    return drawn[static_cast<std::size_t>(row * kSpan + column)];
}

Plane disc_at(Point middle) {
    Square fine(kScale * kEdge);
    draw_disc(fine, kScale * middle.row, kScale * middle.column, kMarkerRadius * kScale);
    const Square disc = reduced(fine, kEdge);
    Plane plane;
    std::copy(disc.values.begin(), disc.values.end(), plane.begin());
    return plane;
}

}  // namespace spion::dashes
