#include "io/pattern_file.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

#include "io/array_file.h"
#include "io/npy.h"
#include "io/picture.h"
#include "io/printable.h"
#include "io/safetensors.h"
#include "io/sparse.h"
#include "io/zip.h"
#include "ir/error.h"

namespace spion {
namespace {

using nlohmann::json;

constexpr std::string_view kSeparators = ",; \t\r";
constexpr std::string_view kAllowed =
    "give nb lines of nb characters 0 or 1, JSON of `spion discover`, a CSV, a PNG, or a mask of "
    "NumPy, SciPy or safetensors";

FoundPattern parse_mask(const Array& array, const PatternRequest& request) {
    if (is_floating(array.type)) {
        throw UserError(
            "{}: holds {}: give a mask of bool or integers, or find a pattern in scores "
            "with `spion discover`",
            array.origin, to_string(array.type));
    }
    if (array.shape.size() != 2 || array.shape[0] != array.shape[1]) {
        throw UserError("{}: a mask of shape {} is not square: give (nb, nb) or (L, L)",
                        array.origin, array.shape_text());
    }
    const std::int64_t edge = array.shape[0];
    const MaskGrid grid = mask_grid(edge, request, array.origin);
    return pattern_of_mask(grid, [&](const SetCell& set) {
        std::vector<double> row(static_cast<std::size_t>(edge));
        for (std::int64_t i = 0; i < edge; ++i) {
            array.read(i * edge, row);
            for (std::int64_t j = 0; j < edge; ++j) {
                if (row[static_cast<std::size_t>(j)] != 0) {
                    set(i, j);
                }
            }
        }
    });
}

std::string_view take_line(std::string_view& text) {
    const std::size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    return line;
}

// Takes a word off the front of `line`; "" at its end.
std::string_view take_word(std::string_view& line) {
    line.remove_prefix(std::min(line.find_first_not_of(kSeparators), line.size()));
    const std::string_view word = line.substr(0, line.find_first_of(kSeparators));
    line.remove_prefix(word.size());
    return word;
}

// 0 or 1 in any spelling: 0, 1.0, 1.000e+00, False, true.
bool parse_cell(std::string_view word, const std::string& origin, std::size_t line) {
    if (word == "true" || word == "True" || word == "TRUE") {
        return true;
    }
    if (word == "false" || word == "False" || word == "FALSE") {
        return false;
    }
    double value = 0;
    const char* end = word.data() + word.size();
    const auto [stop, error] = std::from_chars(word.data(), end, value);
    if (error != std::errc{} || stop != end || (value != 0.0 && value != 1.0)) {
        throw UserError("{}:{}: {:?} is neither 0 nor 1: use 0 and 1, or false and true", origin,
                        line, printable(word));
    }
    return value == 1.0;
}

FoundPattern parse_csv(std::string_view text, const PatternRequest& request,
                       const std::string& origin) {
    std::vector<std::uint8_t> cells;
    std::size_t edge = 0, rows = 0;
    for (std::size_t number = 1; !text.empty(); ++number) {
        std::string_view line = take_line(text);
        const std::size_t before = cells.size();
        for (std::string_view word = take_word(line); !word.empty(); word = take_word(line)) {
            cells.push_back(parse_cell(word, origin, number) ? 1 : 0);
        }
        const std::size_t columns = cells.size() - before;
        if (columns == 0) {
            continue;
        }
        edge = rows == 0 ? columns : edge;
        if (columns != edge) {
            throw UserError("{}:{}: row of {} numbers after rows of {}: give a square mask", origin,
                            number, columns, edge);
        }
        ++rows;
    }
    if (rows != edge) {
        throw UserError("{}: {} rows of {} numbers: give a square mask", origin, rows, edge);
    }
    const MaskGrid grid = mask_grid(static_cast<std::int64_t>(edge), request, origin);
    return pattern_of_mask(grid, [&](const SetCell& set) {
        for (std::size_t i = 0; i < cells.size(); ++i) {
            if (cells[i] != 0) {
                set(static_cast<std::int64_t>(i / edge), static_cast<std::int64_t>(i % edge));
            }
        }
    });
}

std::int64_t whole_number(const json& object, const char* field, const std::string& origin) {
    const auto found = object.find(field);
    if (found == object.end() || !found->is_number_integer() || found->get<std::int64_t>() < 1 ||
        found->get<std::int64_t>() > INT32_MAX) {
        throw UserError("{}: \"{}\" is no number from 1 to {}: give the JSON of `spion discover`",
                        origin, field, INT32_MAX);
    }
    return *found;
}

FoundPattern parse_object(const json& object, const PatternRequest& request,
                          const std::string& origin) {
    const std::int64_t length = whole_number(object, "length", origin);
    const std::int64_t block = whole_number(object, "block", origin);
    if (request.block && *request.block != block) {
        throw UserError("{}: its blocks are of {} and --block says {}: leave --block out", origin,
                        block, *request.block);
    }
    if (request.length > 0 && request.length != length) {
        throw UserError("{}: its length is {} and --length says {}: leave --length out", origin,
                        length, request.length);
    }
    const auto rows = object.find("pattern");
    if (rows == object.end() || !rows->is_array()) {
        throw UserError("{}: \"pattern\" is no array of rows: give the JSON of `spion discover`",
                        origin);
    }
    std::string text;
    for (const json& row : *rows) {
        if (!row.is_string()) {
            throw UserError("{}: a row of \"pattern\" is no text of 0 and 1", origin);
        }
        text += row.get<std::string>() + "\n";
    }
    return {.pattern = parse_bits(text, length, static_cast<int>(block), origin)};
}

FoundPattern parse_json(std::string_view text, const std::string& member,
                        const PatternRequest& request, const std::string& origin) {
    const json root = json::parse(text, nullptr, false);
    if (root.is_object() && member.empty()) {
        return parse_object(root, request, origin);
    }
    if (!root.is_array() || root.empty()) {
        throw UserError(
            "{}: is no JSON object of one pattern or array of several: give the JSON of "
            "`spion discover`",
            origin);
    }
    std::size_t index = 0;
    const char* end = member.data() + member.size();
    const auto [stop, error] = std::from_chars(member.data(), end, index);
    const bool only = member.empty() && root.size() == 1;
    if (!only && (error != std::errc{} || stop != end || index >= root.size())) {
        throw UserError("{}: holds {} patterns: name one as {}:0 to {}:{}", origin, root.size(),
                        origin, origin, root.size() - 1);
    }
    if (!root[index].is_object()) {
        throw UserError("{}: pattern {} is no JSON object", origin, index);
    }
    return parse_object(root[index], request, origin);
}

// Its lines say nb, and with the block the length, unless the request has one.
FoundPattern parse_lines(std::string_view text, const PatternRequest& request,
                         const std::string& origin) {
    std::int64_t lines = 0;
    for (std::string_view rest = text; !rest.empty();) {
        lines += take_line(rest).find_first_of("01") != std::string_view::npos ? 1 : 0;
    }
    if (lines == 0) {
        throw UserError("{}: holds no bits; {}", origin, kAllowed);
    }
    const int block = request.block.value_or(kDefaultBlock);
    const std::int64_t length = request.length > 0 ? request.length : lines * block;
    return {.pattern = parse_bits(
                text, length, request.key_length > 0 ? request.key_length : length, block, origin)};
}

FoundPattern parse_text(std::string_view text, const std::string& member,
                        const PatternRequest& request, const std::string& origin) {
    text = without_bom(text);
    const std::size_t first = text.find_first_not_of(" \t\r\n");
    if (first != std::string_view::npos && (text[first] == '{' || text[first] == '[')) {
        return parse_json(text, member, request, origin);
    }
    if (!member.empty()) {
        throw UserError("{}: holds one pattern: leave out :{}", origin, member);
    }
    // A separator between two words of one line.
    const std::string_view body = first == std::string_view::npos ? text : text.substr(first);
    std::string_view line = body.substr(0, body.find('\n'));
    const bool words = !take_word(line).empty() && !take_word(line).empty();
    const bool comma = body.find_first_of(",;") != std::string_view::npos;
    return words || comma ? parse_csv(text, request, origin) : parse_lines(text, request, origin);
}

}  // namespace

FoundPattern parse_pattern(const Bytes& bytes, const std::string& origin, const std::string& member,
                           const PatternRequest& request) {
    if (is_png(bytes.view)) {
        return parse_picture(bytes.view, request, origin);
    }
    if (is_zip(bytes.view)) {
        const Zip zip(bytes, origin);
        if (member.empty() && is_sparse_matrix(zip)) {
            return parse_sparse_matrix(zip, request, origin);
        }
        return parse_mask(parse_array(bytes, origin, member), request);
    }
    if (bytes.view.starts_with(kNpyMagic) || is_safetensors(bytes.view)) {
        return parse_mask(parse_array(bytes, origin, member), request);
    }
    return parse_text(bytes.view, member, request, origin);
}

FoundPattern open_pattern(const std::string& name, const PatternRequest& request) {
    const FileName parts = split_name(name);
    const std::string origin = parts.path == "-" ? "standard input" : parts.path;
    return parse_pattern(read_bytes(parts.path), origin, parts.member, request);
}

}  // namespace spion
