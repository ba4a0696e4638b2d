#include "tools/inspect/read_maps.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "ir/error.h"
#include "tools/inspect/files.h"

namespace spion::inspect {
namespace {

namespace fs = std::filesystem;

// Rows of numbers, one behind the other; `rows` counts them.
std::vector<double> read_numbers(const std::string& text, const fs::path& file, int& rows) {
    std::vector<double> values;
    const char* at = text.data();
    const char* const end = at + text.size();
    for (rows = 0; at < end;) {
        double value = 0;
        const auto [next, error] = std::from_chars(at, end, value);
        if (error != std::errc() || next == end || (*next != ',' && *next != '\n')) {
            throw UserError(
                "{}:{}: number {} of the pooled map cannot be read; remove the file to "
                "go on without it",
                file.string(), rows + 1, values.size() + 1);
        }
        values.push_back(value);
        rows += *next == '\n' ? 1 : 0;
        at = next + 1;
    }
    return values;
}

// The step of "layer0-step00000500.csv"; nothing for another file or layer.
std::optional<std::int64_t> step_of(const std::string& name, int layer) {
    const std::string begin = fmt::format("layer{}-step", layer), end = ".csv";
    if (!name.starts_with(begin) || !name.ends_with(end)) return std::nullopt;
    std::int64_t step = 0;
    const char* const last = name.data() + name.size() - end.size();
    const auto [next, error] = std::from_chars(name.data() + begin.size(), last, step);
    return error == std::errc() && next == last ? std::optional(step) : std::nullopt;
}

}  // namespace

std::vector<double> read_pooled(const fs::path& file, int blocks) {
    const std::optional<std::string> text = read_if_there(file);
    if (!text) return {};
    int rows = 0;
    std::vector<double> values = read_numbers(*text, file, rows);
    if (values.size() != static_cast<std::size_t>(blocks) * static_cast<std::size_t>(blocks)) {
        throw UserError(
            "{}: {} numbers where a pattern of {} x {} blocks needs {}; remove the "
            "file to go on without it",
            file.string(), values.size(), blocks, blocks, blocks * blocks);
    }
    return values;
}

std::vector<MapFacts> read_history(const fs::path& folder, int layer) {
    std::vector<MapFacts> maps;
    std::error_code ignored;
    if (!fs::is_directory(folder, ignored)) return maps;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
        const auto step = step_of(entry.path().filename().string(), layer);
        const auto text = step ? read_if_there(entry.path()) : std::nullopt;
        if (!text) continue;
        MapFacts map{.step = *step};
        map.pooled = read_numbers(*text, entry.path(), map.blocks);
        if (map.pooled.empty() || map.pooled.size() != static_cast<std::size_t>(map.blocks) *
                                                           static_cast<std::size_t>(map.blocks)) {
            throw UserError(
                "{}: {} numbers in {} rows are no square map; remove the file to go on "
                "without it",
                entry.path().string(), map.pooled.size(), map.blocks);
        }
        maps.push_back(std::move(map));
    }
    std::sort(maps.begin(), maps.end(),
              [](const MapFacts& a, const MapFacts& b) { return a.step < b.step; });
    return maps;
}

}  // namespace spion::inspect
