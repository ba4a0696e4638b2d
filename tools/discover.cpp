// `spion discover`: a saved score map -> the block pattern that SPION finds in it.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "compiler/discovery/discover.h"
#include "io/array_file.h"
#include "ir/block_pattern.h"
#include "ir/error.h"
#include "ir/head_patterns.h"
#include "runtime/output.h"
#include "tools/commands.h"

namespace spion {
namespace {

struct DiscoverOptions {
    std::string scores;  // a name for open_array(): [L, L], [H, L, L] or [B, H, L, L]
    DiscoverySettings settings;
    std::string variant = "cf";
    std::string format = "bits";
    std::string maps = "mean";
    bool per_head = false;  // a pattern a head, each from the mean of its samples' maps
    int kv_heads = 0;       // of K and V, with a pattern each; 0: as many as heads
};

struct Discovered {
    std::string map;  // "b,h" or "h" of one map or head among several, "" of the only one or the
                      // mean of all
    BlockPattern pattern;
    double threshold;  // the quantile of the pooled map, also where the variant does not use it
};

// Square maps, one after the other.
struct MapFile {
    Array array;
    std::int64_t length;  // L
    std::int64_t count;   // B * H
};

MapFile open_maps(const std::string& name) {
    Array array = open_array(name);
    const std::vector<std::int64_t>& shape = array.shape;
    const std::size_t axes = shape.size();
    if (axes < 2 || axes > 4 || shape[axes - 1] != shape[axes - 2] || array.count() < 1) {
        throw UserError(
            "{}: scores of shape {} are not square maps: give (L, L), (H, L, L) or (B, H, L, L)",
            array.origin, array.shape_text());
    }
    const std::int64_t length = shape.back();
    const std::int64_t count = array.count() / (length * length);
    return {.array = std::move(array), .length = length, .count = count};
}

// "b,h", or "h" where the file has no batch.
std::string map_name(const MapFile& maps, std::int64_t index) {
    if (maps.array.shape.size() < 4) {
        return std::to_string(index);
    }
    const std::int64_t heads = maps.array.shape[1];
    return fmt::format("{},{}", index / heads, index % heads);
}

// One row of one map, held against what a score may be: any finite number, or -inf for masked.
void read_row(const MapFile& maps, std::int64_t map, std::int64_t row, std::span<double> out) {
    maps.array.read((map * maps.length + row) * maps.length, out);
    for (std::size_t j = 0; j < out.size(); ++j) {
        if (std::isnan(out[j]) || out[j] == std::numeric_limits<double>::infinity()) {
            throw UserError(
                "{}: score [{}{}, {}] is {}: give finite scores, such as a softmax's, and -inf for "
                "masked ones",
                maps.array.origin, maps.array.shape.size() > 2 ? map_name(maps, map) + ", " : "",
                row, j, out[j]);
        }
    }
}

// Of one row: the mean over `indices` of what is not masked; -inf where every map is.
void read_mean_row(const MapFile& maps, std::span<const std::int64_t> indices, std::int64_t row,
                   std::span<double> out) {
    if (indices.size() == 1) {
        read_row(maps, indices.front(), row, out);
        return;
    }
    std::vector<double> one(out.size()), present(out.size(), 0.0);
    std::fill(out.begin(), out.end(), 0.0);
    for (const std::int64_t index : indices) {
        read_row(maps, index, row, one);
        for (std::size_t j = 0; j < out.size(); ++j) {
            const bool masked = std::isinf(one[j]);
            out[j] += masked ? 0.0 : one[j];
            present[j] += masked ? 0.0 : 1.0;
        }
    }
    for (std::size_t j = 0; j < out.size(); ++j) {
        out[j] = present[j] == 0.0 ? -std::numeric_limits<double>::infinity() : out[j] / present[j];
    }
}

Discovered discover_mean(const MapFile& maps, std::span<const std::int64_t> indices,
                         const DiscoverySettings& settings, std::string name) {
    const auto rows = [&](std::int64_t row, std::span<double> out) {
        read_mean_row(maps, indices, row, out);
    };
    const std::vector<double> pooled = pool_masked_scores(rows, maps.length, settings);
    return Discovered{.map = std::move(name),
                      .pattern = discover_masked(pooled, maps.length, settings),
                      .threshold = masked_quantile(pooled, settings.quantile)};
}

// The index of the map that --maps names: "h", or "b,h".
std::int64_t named_map(const MapFile& maps, const std::string& name) {
    for (std::int64_t index = 0; index < maps.count; ++index) {
        if (name == map_name(maps, index)) {
            return index;
        }
    }
    throw UserError(
        "--maps {} is not known for scores of shape {}: use mean, each, or one map's {} counted "
        "from 0",
        name, maps.array.shape_text(),
        maps.array.shape.size() == 4 ? "sample and head as B,H" : "head");
}

// One a head of K and V, each from the mean over the samples and the query heads that share it.
std::vector<Discovered> discover_heads(const MapFile& maps, const DiscoverOptions& options) {
    const std::vector<std::int64_t>& shape = maps.array.shape;
    if (options.maps != "mean") {
        throw UserError("--per-head takes the mean of each head's maps: leave --maps {} away",
                        options.maps);
    }
    if (shape.size() < 3) {
        throw UserError(
            "{}: scores of shape {} are one map, and --per-head finds a pattern in those of each "
            "head: give (H, L, L) or (B, H, L, L)",
            maps.array.origin, maps.array.shape_text());
    }
    const std::int64_t heads = shape[shape.size() - 3];
    const std::int64_t patterns = options.kv_heads == 0 ? heads : options.kv_heads;
    if (patterns < 1 || heads % patterns != 0) {
        throw UserError(
            "--kv-heads is {}, but {} has {} heads: give a number that divides them, or leave it "
            "out for a pattern of each",
            options.kv_heads, maps.array.origin, heads);
    }
    const std::int64_t group = heads / patterns;  // query heads that share K and V
    std::vector<Discovered> found;
    for (std::int64_t pattern = 0; pattern < patterns; ++pattern) {
        std::vector<std::int64_t> own;
        for (std::int64_t index = 0; index < maps.count; ++index) {
            if (index % heads / group == pattern) {
                own.push_back(index);
            }
        }
        found.push_back(discover_mean(maps, own, options.settings, std::to_string(pattern)));
    }
    return found;
}

std::vector<Discovered> discover_in_file(const DiscoverOptions& options) {
    const MapFile maps = open_maps(options.scores);
    if (options.per_head) {
        return discover_heads(maps, options);
    }
    if (options.kv_heads != 0) {
        throw UserError("--kv-heads says how many patterns --per-head finds: give both");
    }
    std::vector<std::int64_t> all(static_cast<std::size_t>(maps.count));
    std::iota(all.begin(), all.end(), std::int64_t{0});
    if (options.maps == "mean") {
        std::vector<Discovered> mean;
        mean.push_back(discover_mean(maps, all, options.settings, ""));
        return mean;
    }
    if (options.maps != "each") {
        all = {named_map(maps, options.maps)};
    }
    std::vector<Discovered> found;
    for (const std::int64_t index : all) {
        found.push_back(discover_mean(maps, std::span(&index, 1), options.settings,
                                      maps.array.shape.size() == 2 ? "" : map_name(maps, index)));
    }
    return found;
}

nlohmann::ordered_json to_json(const Discovered& found, Variant variant) {
    nlohmann::ordered_json rows = nlohmann::ordered_json::array();
    std::string_view bits;
    const std::string text = found.pattern.to_bits();
    for (bits = text; !bits.empty(); bits.remove_prefix(bits.find('\n') + 1)) {
        rows.push_back(std::string(bits.substr(0, bits.find('\n'))));
    }
    nlohmann::ordered_json json;
    if (!found.map.empty()) {
        json["map"] = found.map;
    }
    json["block"] = found.pattern.block();
    json["length"] = found.pattern.length();
    json["nb"] = found.pattern.rows();
    json["density"] = found.pattern.density();
    json["threshold"] = found.threshold;
    json["variant"] = std::string(to_string(variant));
    json["pattern"] = std::move(rows);
    return json;
}

std::string to_picture(const Discovered& found) {
    const BlockPattern& pattern = found.pattern;
    return (found.map.empty() ? "" : fmt::format("map={} ", found.map)) +
           fmt::format("length={} block={} nb={} blocks={} density={:.4f}\n", pattern.length(),
                       pattern.block(), pattern.rows(), pattern.block_count(), pattern.density()) +
           pattern.to_art(picture_columns(stdout_terminal()));
}

// How full the heads are, and how evenly: a layer's time is that of all its heads' blocks, and the
// fullest head is what is left at the end where there are more SMs than work items.
void tell_balance(const std::vector<Discovered>& found) {
    std::vector<BlockPattern> patterns;
    for (const Discovered& head : found) {
        patterns.push_back(head.pattern);
    }
    say("spion: {}\n", density_text(HeadPatterns(std::move(patterns))));
}

void run_discover(DiscoverOptions options) {
    options.settings.variant = parse_variant(options.variant);
    check(options.settings);
    if (options.format != "bits" && options.format != "art" && options.format != "json") {
        throw UserError("format '{}' is not known: use bits, art or json", options.format);
    }
    const std::vector<Discovered> found = discover_in_file(options);
    if (options.per_head) {
        tell_balance(found);
    }
    if (options.format == "json") {
        nlohmann::ordered_json all = nlohmann::ordered_json::array();
        for (const Discovered& one : found) {
            all.push_back(to_json(one, options.settings.variant));
        }
        const bool several = options.per_head || options.maps == "each";
        write_out((several ? all : all.front()).dump(2) + "\n");
        return;
    }
    std::string text;
    for (const Discovered& one : found) {
        text += text.empty() ? "" : "\n";  // an empty line between two
        text += options.format == "art" ? to_picture(one) : one.pattern.to_bits();
    }
    write_out(text);
}

}  // namespace

void add_discover(CLI::App& app, int* /*exit_code: errors are thrown*/) {
    CLI::App* command =
        app.add_subcommand("discover", "Find the block pattern in a saved attention score map");
    const auto options = std::make_shared<DiscoverOptions>();
    command
        ->add_option(
            "scores", options->scores,
            "Score maps of shape (L, L), (H, L, L) or (B, H, L, L): a .npy, FILE.npz:NAME, "
            "FILE.safetensors:NAME, or - for one of these from standard input")
        ->required()
        ->type_name("SCORES");
    command
        ->add_option("--maps", options->maps,
                     "Of several maps: their mean, each (a pattern a map), or one as HEAD or "
                     "SAMPLE,HEAD, counted from 0")
        ->capture_default_str();
    command->add_flag("--per-head", options->per_head,
                      "A pattern a head, from the mean of its maps over the samples: bits with an "
                      "empty line between two, or a JSON array for --pattern-heads");
    command->add_option("--kv-heads", options->kv_heads,
                        "With --per-head: a pattern for each of so many heads of K and V, from the "
                        "query heads that share it; 0: for each query head");
    command->add_option("--block", options->settings.block, "Block edge: 16, 32, 64 or 128")
        ->capture_default_str();
    command->add_option("--filter", options->settings.filter, "Edge of the diagonal filter, >= 1")
        ->capture_default_str();
    command
        ->add_option("--quantile", options->settings.quantile,
                     "Of the pooled scores, the threshold of cf and f, 0 to 1")
        ->capture_default_str();
    command->add_option("--density", options->settings.density, "Of the pattern of c, 0 to 1")
        ->capture_default_str();
    command
        ->add_option("--variant", options->variant,
                     "cf (filter and flood fill), f (flood fill) or c (filter and top blocks)")
        ->capture_default_str();
    command->add_option("--format", options->format, "bits, art or json")->capture_default_str();
    command->callback([options] { run_discover(*options); });
}

}  // namespace spion
