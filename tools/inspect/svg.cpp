#include "tools/inspect/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "tools/inspect/format.h"

namespace spion::inspect {
namespace {

// "M x y h w v 1 h -w z" of row y: a rectangle in a path.
void append_cells(std::string& path, int x, int y, int width) {
    fmt::format_to(std::back_inserter(path), "M{} {}h{}v1h-{}z", x, y, width, width);
}

std::string open_picture(int blocks, std::string_view label) {
    return fmt::format(
        "<svg class=\"picture\" viewBox=\"-0.02 -0.02 {0}.04 {0}.04\" role=\"img\" "
        "aria-label=\"{1}\"><rect class=\"ground\" width=\"{0}\" height=\"{0}\"/>",
        blocks, escape(label));
}

// Length of the UTF-8 sequence at `at`, 0 when it is not one.
std::size_t sequence_length(std::string_view text, std::size_t at) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned char first = byte(at);
    const std::size_t length = first < 0x80                     ? 1
                               : first >= 0xC2 && first < 0xE0  ? 2
                               : first >= 0xE0 && first < 0xF0  ? 3
                               : first >= 0xF0 && first <= 0xF4 ? 4
                                                                : 0;
    if (length == 0 || at + length > text.size()) {
        return 0;
    }
    for (std::size_t i = 1; i < length; ++i) {
        if ((byte(at + i) & 0xC0) != 0x80) {
            return 0;
        }
    }
    const bool overlong =
        (first == 0xE0 && byte(at + 1) < 0xA0) || (first == 0xF0 && byte(at + 1) < 0x90);
    const bool beyond =
        (first == 0xED && byte(at + 1) > 0x9F) || (first == 0xF4 && byte(at + 1) > 0x8F);
    return overlong || beyond ? 0 : length;
}

// One rectangle of a work item's step, in units of pattern blocks.
struct TileRectangle {
    double along, across, width, height;  // streamed, stationary
};

// Steps of `item`: consecutive gather blocks that are adjacent become one rectangle.
std::vector<TileRectangle> rectangles_of(const TileProgram& program, int item) {
    const auto at = static_cast<std::size_t>(item);
    const double block = program.block;
    const auto stays = static_cast<double>(stationary_length(program.attention, program.role));
    const auto length = static_cast<double>(streamed_length(program.attention, program.role));
    const int per_step = std::max(1, program.streamed_rows / program.gather_rows);
    const auto across = static_cast<double>(program.tile(item) * program.stationary_rows);
    const double height = std::min<double>(program.stationary_rows, stays - across);
    std::vector<TileRectangle> found;
    const int begin = program.offsets[at], end = program.offsets[at + 1];
    for (int i = begin; i < end;) {
        int last = i + 1;
        const auto gather_block = [&](int k) {
            return program.gather_blocks[static_cast<std::size_t>(k)];
        };
        while (last < end && (last - begin) % per_step != 0 &&
               gather_block(last) == gather_block(last - 1) + 1) {
            ++last;
        }
        const double first = gather_block(i) * static_cast<double>(program.gather_rows);
        const double stop = (gather_block(last - 1) + 1) * static_cast<double>(program.gather_rows);
        found.push_back({.along = first / block,
                         .across = across / block,
                         .width = (std::min(stop, length) - first) / block,
                         .height = height / block});
        i = last;
    }
    return found;
}

}  // namespace

std::string escape(std::string_view text) {
    std::string safe;
    for (std::size_t i = 0; i < text.size();) {
        const std::size_t length = sequence_length(text, i);
        const auto byte = static_cast<unsigned char>(text[i]);
        if (length == 0 || (byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7F) {
            safe += "\xEF\xBF\xBD";
            ++i;
            continue;
        }
        switch (text[i]) {
            case '&':
                safe += "&amp;";
                break;
            case '<':
                safe += "&lt;";
                break;
            case '>':
                safe += "&gt;";
                break;
            case '"':
                safe += "&quot;";
                break;
            case '\'':
                safe += "&#39;";
                break;
            default:
                safe += text.substr(i, length);
        }
        i += length;
    }
    return safe;
}

std::string pattern_picture(const BlockPattern& pattern) {
    std::string path;
    for (int r = 0; r < pattern.rows(); ++r) {
        const auto row = pattern.row(r);
        for (std::size_t i = 0; i < row.size();) {
            std::size_t end = i + 1;
            while (end < row.size() && row[end] == row[end - 1] + 1) {
                ++end;
            }
            append_cells(path, row[i], r, static_cast<int>(end - i));
            i = end;
        }
    }
    if (path.empty()) {
        return open_picture(pattern.rows(), "empty block pattern") +
               fmt::format(
                   "<text class=\"axis\" x=\"{0}\" y=\"{0}\" font-size=\"{1}\" "
                   "style=\"font-size:{1}px\" text-anchor=\"middle\">no block</text></svg>",
                   pattern.rows() / 2.0, pattern.rows() / 12.0);
    }
    return open_picture(pattern.rows(), "block pattern") +
           fmt::format("<path class=\"block\" d=\"{}\"/></svg>", path);
}

// 16 shades by the square root of a value between the least and the largest: scores are skewed.
std::string pooled_picture(std::span<const double> pooled, int blocks) {
    constexpr int kShades = 16;
    double low = INFINITY, high = -INFINITY;
    for (const double value : pooled) {
        if (std::isfinite(value)) {
            low = std::min(low, value);
            high = std::max(high, value);
        }
    }
    std::array<std::string, kShades + 1> paths;
    const auto shade = [&](std::size_t i) {
        if (!std::isfinite(pooled[i])) {
            return 0;
        }
        const double share = high > low ? (pooled[i] - low) / (high - low) : 0;
        return 1 + static_cast<int>(std::lround(std::sqrt(share) * (kShades - 1)));
    };
    for (int r = 0; r < blocks; ++r) {
        for (int c = 0; c < blocks;) {
            const std::size_t row = static_cast<std::size_t>(r) * static_cast<std::size_t>(blocks);
            const int value = shade(row + static_cast<std::size_t>(c));
            int end = c + 1;
            while (end < blocks && shade(row + static_cast<std::size_t>(end)) == value) {
                ++end;
            }
            append_cells(paths[static_cast<std::size_t>(value)], c, r, end - c);
            c = end;
        }
    }
    std::string svg = open_picture(blocks, "pooled scores");
    for (std::size_t i = 1; i < paths.size(); ++i) {
        if (!paths[i].empty()) {
            svg += fmt::format("<path class=\"score\" fill-opacity=\"{:.3f}\" d=\"{}\"/>",
                               static_cast<double>(i) / kShades, paths[i]);
        }
    }
    return svg + "</svg>";
}

std::string program_picture(const TileProgram& program, int pattern) {
    const std::int64_t longer =
        std::max(program.attention.length, program.attention.key_value_length());
    const std::int64_t blocks = (longer + program.block - 1) / program.block;
    const bool by_column = walks_columns(program.role);
    std::string svg = open_picture(static_cast<int>(blocks), "tile program");
    const double gap = static_cast<double>(blocks) / 500;
    const bool numbers = program.pattern_tiles() <= 48;
    for (int item = 0; item < program.tiles(); ++item) {
        if (program.pattern(item) != pattern) {
            continue;
        }
        const auto rectangles = rectangles_of(program, item);
        const int share = program.tiles() > 1 ? 100 * item / (program.tiles() - 1) : 0;
        svg += fmt::format(
            "<g class=\"tile\" style=\"--when:{}%\"><title>work item {}: {} tile {}, {} "
            "gather blocks in {} pieces, {}</title>",
            share, item, by_column ? "key" : "query", program.tile(item),
            program.offsets[static_cast<std::size_t>(item) + 1] -
                program.offsets[static_cast<std::size_t>(item)],
            rectangles.size(), to_string(row_class(program, item)));
        for (TileRectangle r : rectangles) {
            if (by_column) {
                std::swap(r.along, r.across);
                std::swap(r.width, r.height);
            }
            svg +=
                fmt::format("<rect x=\"{:.3f}\" y=\"{:.3f}\" width=\"{:.3f}\" height=\"{:.3f}\"/>",
                            r.along + gap, r.across + gap, std::max(gap, r.width - 2 * gap),
                            std::max(gap, r.height - 2 * gap));
        }
        if (numbers && !rectangles.empty()) {
            const TileRectangle& r = rectangles.front();
            const double size = std::min({r.height * 0.62, r.width * 0.55, blocks / 18.0});
            const double x = r.along + r.width / 2, y = r.across + r.height / 2;
            svg += fmt::format("<text x=\"{:.3f}\" y=\"{:.3f}\" font-size=\"{:.3f}\">{}</text>",
                               by_column ? y : x, (by_column ? x : y) + size * 0.36, size, item);
        }
        svg += "</g>";
    }
    return svg + "</svg>";
}

std::string bar(std::span<const Share> shares, double whole) {
    std::string svg =
        "<svg class=\"bar\" viewBox=\"0 0 1000 26\" preserveAspectRatio=\"none\" role=\"img\" "
        "aria-label=\"step time\">";
    double x = 0;
    for (const Share& share : shares) {
        const double width = whole > 0 ? 1000 * share.value / whole : 0;
        svg += fmt::format(
            "<rect class=\"{}\" x=\"{:.2f}\" width=\"{:.2f}\" height=\"26\"><title>{}: "
            "{}</title></rect>",
            escape(share.style), x, std::max(0.0, width), escape(share.name),
            milliseconds(share.value));
        x += width;
    }
    return svg + "</svg>";
}

}  // namespace spion::inspect
