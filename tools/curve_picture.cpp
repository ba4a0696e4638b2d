#include "tools/curve_picture.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <set>

#include "ir/error.h"
#include "tools/inspect/svg.h"

namespace spion {
namespace {

constexpr double kLeft = 60, kTop = 34, kWide = 520, kHigh = 300;

// Of the blocks 16, 32, 64 and 128; readable on white.
const char* colour_of(int block) {
    switch (block) {
        case 16:
            return "#b3541e";
        case 32:
            return "#2e7d32";
        case 64:
            return "#1f5fa8";
        default:
            return "#6a3d9a";
    }
}

// Density and milliseconds to the picture's units.
struct Frame {
    double most;
    double x(double density) const { return kLeft + kWide * density; }
    double y(double ms) const { return kTop + kHigh * (1 - ms / most); }
};

std::string axes(const Frame& frame) {
    std::string text = fmt::format(
        "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"none\" "
        "stroke=\"#999\"/>\n",
        kLeft, kTop, kWide, kHigh);
    for (int fifth = 0; fifth <= 5; ++fifth) {
        text += fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{:.1f}</text>\n",
                            frame.x(fifth / 5.0), kTop + kHigh + 18, fifth / 5.0);
    }
    for (int quarter = 0; quarter <= 4; ++quarter) {
        const double ms = frame.most * quarter / 4;
        text += fmt::format("<text x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{:.3g}</text>\n",
                            kLeft - 6, frame.y(ms) + 4, ms);
    }
    return text + fmt::format(
                      "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">density of the pattern; "
                      "time in ms</text>\n",
                      kLeft + kWide / 2, kTop + kHigh + 40);
}

std::string curve(const Frame& frame, std::span<const CurvePoint> points, int block) {
    std::string places, dots;
    for (const CurvePoint& point : points) {
        const double x = frame.x(point.density), y = frame.y(point.both_ms());
        places += fmt::format("{:.1f},{:.1f} ", x, y);
        dots += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.5\" fill=\"{}\"/>\n", x, y,
                            colour_of(block));
    }
    return fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>\n",
                       places, colour_of(block)) +
           dots;
}

}  // namespace

std::vector<CurvePoint> curve_of(std::span<const CurvePoint> points, int block) {
    std::vector<CurvePoint> found;
    std::copy_if(points.begin(), points.end(), std::back_inserter(found),
                 [block](const CurvePoint& point) { return point.block == block; });
    std::sort(found.begin(), found.end(),
              [](const CurvePoint& a, const CurvePoint& b) { return a.density < b.density; });
    return found;
}

double dense_ms(std::span<const CurvePoint> points) {
    double least = std::numeric_limits<double>::infinity();
    for (const CurvePoint& point : points) {
        if (point.density >= 1) {
            least = std::min(least, point.both_ms());
        }
    }
    if (least == std::numeric_limits<double>::infinity()) {
        throw UserError(
            "no density is 1, and dense attention is what curves are held against: give "
            "--densities "
            "with a 1");
    }
    return least;
}

std::optional<double> break_even(std::span<const CurvePoint> points, int block, double dense) {
    const std::vector<CurvePoint> curve = curve_of(points, block);
    if (curve.empty() || curve.front().both_ms() >= dense) {
        return std::nullopt;
    }
    for (std::size_t i = 1; i < curve.size(); ++i) {
        const double before = curve[i - 1].both_ms(), now = curve[i].both_ms();
        if (now >= dense) {
            const double share = (dense - before) / (now - before);
            return curve[i - 1].density + share * (curve[i].density - curve[i - 1].density);
        }
    }
    return curve.back().density;
}

std::string curve_picture(std::span<const CurvePoint> points, const std::string& title) {
    const double dense = dense_ms(points);
    Frame frame{dense};
    std::set<int> blocks;
    for (const CurvePoint& point : points) {
        frame.most = std::max(frame.most, point.both_ms());
        blocks.insert(point.block);
    }
    std::string text = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" "
        "font-family=\"sans-serif\" font-size=\"12\">\n<title>{2}</title>\n"
        "<rect width=\"{0}\" height=\"{1}\" fill=\"#fff\"/>\n<text x=\"{3}\" y=\"20\">{2}</text>\n",
        kLeft + kWide + 90, kTop + kHigh + 50, inspect::escape(title), kLeft);
    text += axes(frame);
    text += fmt::format(
        "<polyline points=\"{:.1f},{:.1f} {:.1f},{:.1f}\" fill=\"none\" stroke=\"#555\" "
        "stroke-dasharray=\"5 4\"/>\n<text x=\"{}\" y=\"{:.1f}\">dense</text>\n",
        frame.x(0), frame.y(dense), frame.x(1), frame.y(dense), kLeft + 6, frame.y(dense) - 5);
    double y = kTop;
    for (const int block : blocks) {
        y += 16;
        text += curve(frame, curve_of(points, block), block);
        text += fmt::format("<text x=\"{}\" y=\"{}\" fill=\"{}\">block {}</text>\n",
                            kLeft + kWide + 8, y, colour_of(block), block);
    }
    return text + "</svg>\n";
}

}  // namespace spion
