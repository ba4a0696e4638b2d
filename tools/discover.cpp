// `spion discover`: a saved score map -> the block pattern that SPION finds in it.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "compiler/discovery/discover.h"
#include "ir/block_pattern.h"
#include "ir/error.h"
#include "runtime/output.h"
#include "tools/commands.h"
#include "tools/npy.h"

namespace spion {
namespace {

struct DiscoverOptions {
    std::string scores;  // path of a .npy, [L, L]
    DiscoverySettings settings;
    std::string variant = "cf";
    std::string format = "bits";
};

struct Discovered {
    BlockPattern pattern;
    double threshold;  // the quantile of the pooled map, also where the variant does not use it
};

// Reads a square map of finite scores; returns its edge L.
std::int64_t read_scores(const std::string& path, std::vector<double>& scores) {
    NpyArray array = read_npy(path);
    if (array.shape.size() != 2 || array.shape[0] != array.shape[1] || array.shape[0] < 1) {
        throw UserError("{}: scores of shape ({}) are not a square map: give one of shape (L, L)",
                        path, fmt::join(array.shape, ", "));
    }
    const std::int64_t length = array.shape[0];
    for (std::size_t i = 0; i < array.values.size(); ++i) {
        if (!std::isfinite(array.values[i])) {
            throw UserError("{}: score [{}, {}] is {}: give finite scores, such as a softmax's",
                            path, static_cast<std::int64_t>(i) / length,
                            static_cast<std::int64_t>(i) % length, array.values[i]);
        }
    }
    scores = std::move(array.values);
    return length;
}

Discovered discover_in_file(const std::string& path, const DiscoverySettings& settings) {
    std::vector<double> scores;  // [L, L]
    const std::int64_t length = read_scores(path, scores);
    const std::vector<double> pooled = pool_scores(scores, length, settings);
    return Discovered{.pattern = discover(pooled, length, settings),
                      .threshold = quantile(pooled, settings.quantile)};
}

std::string to_json(const Discovered& found, Variant variant) {
    nlohmann::ordered_json rows = nlohmann::ordered_json::array();
    std::string_view bits;
    const std::string text = found.pattern.to_bits();
    for (bits = text; !bits.empty(); bits.remove_prefix(bits.find('\n') + 1)) {
        rows.push_back(std::string(bits.substr(0, bits.find('\n'))));
    }
    nlohmann::ordered_json json;
    json["block"] = found.pattern.block();
    json["length"] = found.pattern.length();
    json["nb"] = found.pattern.rows();
    json["density"] = found.pattern.density();
    json["threshold"] = found.threshold;
    json["variant"] = std::string(to_string(variant));
    json["pattern"] = std::move(rows);
    return json.dump(2) + "\n";
}

std::string to_picture(const Discovered& found) {
    const BlockPattern& pattern = found.pattern;
    return fmt::format("length={} block={} nb={} blocks={} density={:.4f}\n", pattern.length(),
                       pattern.block(), pattern.rows(), pattern.block_count(), pattern.density()) +
           pattern.to_art();
}

void run_discover(DiscoverOptions options) {
    options.settings.variant = parse_variant(options.variant);
    check(options.settings);
    if (options.format != "bits" && options.format != "art" && options.format != "json") {
        throw UserError("format '{}' is not known: use bits, art or json", options.format);
    }
    const Discovered found = discover_in_file(options.scores, options.settings);
    if (options.format == "json") {
        write_out(to_json(found, options.settings.variant));
    } else {
        write_out(options.format == "art" ? to_picture(found) : found.pattern.to_bits());
    }
}

}  // namespace

void add_discover(CLI::App& app, int* /*exit_code: errors are thrown*/) {
    CLI::App* command =
        app.add_subcommand("discover", "Find the block pattern in a saved attention score map");
    const auto options = std::make_shared<DiscoverOptions>();
    command->add_option("scores", options->scores, "Score map, a .npy of shape (L, L)")
        ->required()
        ->type_name("SCORES.npy");
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
