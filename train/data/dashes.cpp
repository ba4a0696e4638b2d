#include "train/data/dashes.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace spion::dashes {
namespace {

constexpr int kScale = 2;  // strokes are drawn at twice the size and reduced
constexpr int kFine = kScale * kEdge;
constexpr double kMargin = 1, kMarkerRadius = 1.5;

using FinePlane = std::array<float, kFine * kFine>;

// Weights of Lanczos' kernel (three lobes) that reduce kFine samples to one of kEdge.
struct Tap {
    int first = 0;
    std::vector<float> weights;
};
const std::array<Tap, kEdge>& taps() {
    static const std::array<Tap, kEdge> made = [] {
        std::array<Tap, kEdge> all;
        const auto sinc = [](double x) {
            return x == 0 ? 1.0 : std::sin(std::numbers::pi * x) / (std::numbers::pi * x);
        };
        constexpr double kLobes = 3;
        for (int i = 0; i < kEdge; ++i) {
            const double centre = (i + 0.5) * kScale, support = kLobes * kScale;
            const int first = std::max(0, static_cast<int>(centre - support + 0.5));
            const int end = std::min(kFine, static_cast<int>(centre + support + 0.5));
            std::vector<double> weights;
            double sum = 0;
            for (int x = first; x < end; ++x) {
                const double d = (x - centre + 0.5) / kScale;
                weights.push_back(std::abs(d) < kLobes ? sinc(d) * sinc(d / kLobes) : 0);
                sum += weights.back();
            }
            auto& tap = all[static_cast<std::size_t>(i)];
            tap.first = first;
            for (const double weight : weights) {
                tap.weights.push_back(static_cast<float>(weight / sum));
            }
        }
        return all;
    }();
    return made;
}

// Values stay within 0 and 1, as those of a picture of bytes do.
Plane reduced(const FinePlane& fine) {
    std::array<float, kFine * kEdge> narrow{};  // [kFine, kEdge]
    for (int row = 0; row < kFine; ++row) {
        for (int column = 0; column < kEdge; ++column) {
            const Tap& tap = taps()[static_cast<std::size_t>(column)];
            float sum = 0;
            for (std::size_t k = 0; k < tap.weights.size(); ++k) {
                sum += tap.weights[k] * fine[static_cast<std::size_t>(row * kFine + tap.first) + k];
            }
            narrow[static_cast<std::size_t>(row * kEdge + column)] = std::clamp(sum, 0.0F, 1.0F);
        }
    }
    Plane plane{};
    for (int row = 0; row < kEdge; ++row) {
        const Tap& tap = taps()[static_cast<std::size_t>(row)];
        for (int column = 0; column < kEdge; ++column) {
            float sum = 0;
            for (std::size_t k = 0; k < tap.weights.size(); ++k) {
                sum += tap.weights[k] * narrow[(static_cast<std::size_t>(tap.first) + k) * kEdge +
                                               static_cast<std::size_t>(column)];
            }
            plane[at({row, column})] = std::clamp(sum, 0.0F, 1.0F);
        }
    }
    return plane;
}

void set(FinePlane& fine, int row, int column) {
    if (row >= 0 && row < kFine && column >= 0 && column < kFine) {
        fine[static_cast<std::size_t>(row * kFine + column)] = 1;
    }
}

void draw_disc(FinePlane& fine, double row, double column, double radius) {
    const int reach = static_cast<int>(std::ceil(radius));
    for (int r = -reach; r <= reach; ++r) {
        for (int c = -reach; c <= reach; ++c) {
            if (r * r + c * c <= radius * radius) {
                set(fine, static_cast<int>(row) + r, static_cast<int>(column) + c);
            }
        }
    }
}

// A line of width 1 at twice the size; its footprint is the line dilated by the margin.
Dash draw_dash(int rows, int columns) {
    constexpr int kMiddle = kEdge / 2;
    FinePlane line{}, wide{};
    const int steps = kScale * std::max({std::abs(rows), std::abs(columns), 1});
    for (int i = 0; i <= steps; ++i) {
        const auto place = [&](int distance) {
            return kScale * kMiddle + static_cast<int>(std::lround(static_cast<double>(i) * kScale *
                                                                   distance / steps));
        };
        set(line, place(rows), place(columns));
        draw_disc(wide, place(rows), place(columns), kMargin * kScale);
    }
    const Plane ink = reduced(line), footprint = reduced(wide);
    constexpr float kVisible = 0.5F / 255;
    Dash dash;
    for (int row = 0; row < kEdge; ++row) {
        for (int column = 0; column < kEdge; ++column) {
            const std::size_t cell = at({row, column});
            if (ink[cell] > kVisible || footprint[cell] > kVisible) {
                dash.push_back({row - kMiddle, column - kMiddle, ink[cell], footprint[cell]});
            }
        }
    }
    return dash;
}

}  // namespace

const Dash& dash_between(Point from, Point to) {
    constexpr int kReach = 4, kSpan = 2 * kReach + 1;
    static const std::vector<Dash> drawn = [] {
        std::vector<Dash> all;
        for (int i = 0; i < kSpan * kSpan; ++i) {
            all.push_back(draw_dash(i / kSpan - kReach, i % kSpan - kReach));
        }
        return all;
    }();
    const int row = to.row - from.row + kReach, column = to.column - from.column + kReach;
    return drawn[static_cast<std::size_t>(row * kSpan + column)];
}

Plane disc_at(Point middle) {
    FinePlane fine{};
    draw_disc(fine, kScale * middle.row, kScale * middle.column, kMarkerRadius * kScale);
    return reduced(fine);
}

}  // namespace spion::dashes
