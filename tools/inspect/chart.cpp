// Line charts and the roofline of svg.h: axes with round numbers.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tools/inspect/format.h"
#include "tools/inspect/svg.h"

namespace spion::inspect {
namespace {

constexpr double kWidth = 640, kHeight = 240;
constexpr double kLeft = 52, kRight = 12, kTop = 22, kBottom = 26;

struct Range {
    double low = INFINITY, high = -INFINITY;
    void add(double value) {
        low = std::min(low, value);
        high = std::max(high, value);
    }
    double share(double value) const { return high > low ? (value - low) / (high - low) : 0.5; }
};

// 1, 2 or 5 times a power of ten, so that the range has four steps or so.
double round_step(const Range& range) {
    const double rough = (range.high - range.low) / 4;
    const double power = std::pow(10, std::floor(std::log10(rough)));
    const double digit = rough / power;
    return power * (digit < 1.5 ? 1 : digit < 3.5 ? 2 : digit < 7.5 ? 5 : 10);
}

Range widened(Range range) {
    if (!(range.high > range.low)) {
        const double pad = std::fabs(range.low) > 0 ? std::fabs(range.low) * 0.1 : 1;
        return {.low = range.low - pad, .high = range.high + pad};
    }
    return range;
}

double x_at(double share) {
    return kLeft + share * (kWidth - kLeft - kRight);
}
double y_at(double share) {
    return kHeight - kBottom - share * (kHeight - kTop - kBottom);
}

std::string grid_line(double x1, double y1, double x2, double y2) {
    return fmt::format(
        "<line class=\"grid\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"/>", x1, y1,
        x2, y2);
}
std::string label(double x, double y, std::string_view anchor, std::string_view text) {
    return fmt::format(
        "<text class=\"axis\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>", x, y, anchor,
        escape(text));
}

std::string linear_axes(const Range& x, const Range& y, const std::string& unit) {
    std::string svg;
    const double y_step = round_step(y);
    for (double at = std::ceil(y.low / y_step) * y_step; at <= y.high; at += y_step) {
        const double value = std::fabs(at) < y_step / 1e6 ? 0 : at;
        svg += grid_line(kLeft, y_at(y.share(at)), kWidth - kRight, y_at(y.share(at)));
        svg += label(kLeft - 6, y_at(y.share(at)) + 4, "end",
                     fmt::format("{:.4g}{}", value, unit.empty() ? "" : " " + unit));
    }
    const double x_step = std::max(1.0, round_step(x));
    for (double at = std::ceil(x.low / x_step) * x_step; at <= x.high; at += x_step) {
        svg += label(x_at(x.share(at)), kHeight - 8, "middle", fmt::format("{:.0f}", at));
    }
    return svg;
}

using Points = std::vector<std::pair<double, double>>;

// At most `most` means of neighbours.
Points thinned(const Points& points, std::size_t most) {
    if (points.size() <= most) {
        return points;
    }
    Points means;
    for (std::size_t i = 0; i < most; ++i) {
        const std::size_t begin = i * points.size() / most, end = (i + 1) * points.size() / most;
        double x = 0, y = 0;
        for (std::size_t k = begin; k < end; ++k) {
            x += points[k].first;
            y += points[k].second;
        }
        const auto count = static_cast<double>(end - begin);
        means.emplace_back(x / count, y / count);
    }
    return means;
}

std::string open_chart(std::string_view title) {
    return fmt::format(
        "<svg class=\"chart\" viewBox=\"0 0 {:.0f} {:.0f}\" role=\"img\" aria-label=\"{}\">",
        kWidth, kHeight, escape(title));
}

std::string draw_series(const Series& series, const Points& points, const Range& x,
                        const Range& y) {
    std::string path, dots;
    for (const auto& [px, py] : points) {
        const double cx = x_at(x.share(px)), cy = y_at(y.share(py));
        fmt::format_to(std::back_inserter(path), "{}{:.1f} {:.1f}", path.empty() ? "M" : "L", cx,
                       cy);
        if (series.dots) {
            dots += fmt::format("<circle class=\"{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\"/>",
                                escape(series.style), cx, cy);
        }
    }
    return fmt::format("<path class=\"line {}\" d=\"{}\"><title>{}</title></path>{}",
                       escape(series.style), path, escape(series.name), dots);
}

}  // namespace

std::string line_chart(const Chart& chart) {
    Range x, y;
    std::vector<Points> drawn;
    for (const Series& series : chart.series) {
        Points finite;
        for (const auto& point : series.points) {
            if (std::isfinite(point.first) && std::isfinite(point.second)) {
                finite.push_back(point);
            }
        }
        drawn.push_back(thinned(finite, series.dots ? 100 : 400));
        for (const auto& [px, py] : drawn.back()) {
            x.add(px);
            y.add(py);
        }
    }
    if (x.low > x.high) {
        return "<p class=\"absent\">No measurement of this.</p>";
    }
    x = widened(x);
    y = widened(y);
    std::string svg = open_chart(chart.title) + linear_axes(x, y, chart.y_unit);
    if (chart.mark_x >= x.low && chart.mark_x <= x.high) {
        const double at = x_at(x.share(chart.mark_x));
        const bool right = at > kWidth * 0.7;
        svg += fmt::format(
            "<line class=\"mark\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" "
            "y2=\"{2}\"/><text class=\"mark\" x=\"{3:.1f}\" y=\"{4}\" "
            "text-anchor=\"{5}\">{6}</text>",
            at, kTop, kHeight - kBottom, right ? at - 5 : at + 5, kTop - 8, right ? "end" : "start",
            escape(chart.mark));
    }
    for (std::size_t i = 0; i < chart.series.size(); ++i) {
        if (!drawn[i].empty()) {
            svg += draw_series(chart.series[i], drawn[i], x, y);
        }
    }
    return svg + "</svg>";
}

std::string roofline_picture(const Ceilings& ceilings, std::span<const RooflinePoint> points) {
    Range x, y;  // powers of ten
    const double ridge = ceilings.flop / ceilings.memory;
    x.add(std::log10(ridge) - 1);
    x.add(std::log10(ridge) + 1);
    y.add(std::log10(ceilings.flop) + 0.3);
    y.add(std::log10(ceilings.flop) - 2);
    for (const RooflinePoint& point : points) {
        x.add(std::log10(point.intensity()) - 0.3);
        x.add(std::log10(point.intensity()) + 0.3);
        y.add(std::log10(point.rate()) - 0.3);
    }
    std::string svg = open_chart("roofline");
    for (double power = std::ceil(y.low); power <= y.high; ++power) {
        svg += grid_line(kLeft, y_at(y.share(power)), kWidth - kRight, y_at(y.share(power)));
        svg +=
            label(kLeft - 6, y_at(y.share(power)) + 4, "end", with_unit(std::pow(10, power), ""));
    }
    for (double power = std::ceil(x.low); power <= x.high; ++power) {
        svg += grid_line(x_at(x.share(power)), kTop, x_at(x.share(power)), kHeight - kBottom);
        svg += label(x_at(x.share(power)), kHeight - 8, "middle",
                     fmt::format("{:.4g}", std::pow(10, power)));
    }
    const double knee = std::log10(ridge), top = std::log10(ceilings.flop);
    const double start = std::max(x.low, knee - (top - y.low));
    svg += fmt::format("<path class=\"ceiling\" d=\"M{:.1f} {:.1f}L{:.1f} {:.1f}L{:.1f} {:.1f}\"/>",
                       x_at(x.share(start)), y_at(y.share(top - (knee - start))),
                       x_at(x.share(knee)), y_at(y.share(top)), x_at(1), y_at(y.share(top)));
    for (const RooflinePoint& point : points) {
        svg += fmt::format(
            "<circle class=\"point layer{} {}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"5\"><title>{}: {} "
            "FLOP/B, {}</title></circle>",
            point.layer % 4, point.measured ? "measured" : "predicted",
            x_at(x.share(std::log10(point.intensity()))), y_at(y.share(std::log10(point.rate()))),
            escape(point.label), three_digits(point.intensity()),
            with_unit(point.rate(), "FLOP/s"));
    }
    return svg + "</svg>";
}

}  // namespace spion::inspect
