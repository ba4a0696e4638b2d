// The layers' pictures and the roofline.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "tools/inspect/analyse.h"
#include "tools/inspect/format.h"
#include "tools/inspect/page.h"
#include "tools/inspect/svg.h"
#include "tools/role_results.h"

namespace spion::inspect {
namespace {

std::string pooled_note(const std::vector<double>& pooled) {
    const auto [low, high] = std::minmax_element(pooled.begin(), pooled.end());
    return fmt::format("{:.3g} to {:.3g}, stronger colour is more (square root)", *low, *high);
}

std::string program_note(const TileProgram& program) {
    return fmt::format("{} {} tiles of {} rows, {} {} rows a step", program.tiles(),
                       walks_columns(program.role) ? "key" : "query", program.stationary_rows,
                       program.streamed_rows, walks_columns(program.role) ? "query" : "key");
}

// "12 band, 3 runs, 1 dense".
std::string class_counts(const TileProgram& program) {
    std::map<std::string_view, int> counts;
    for (int item = 0; item < program.tiles(); ++item) {
        ++counts[to_string(row_class(program, item))];
    }
    std::string text;
    for (const auto& [name, count] : counts) {
        text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, name);
    }
    return text;
}

std::string blocks_a_row(const HeadPatterns& patterns) {
    std::vector<std::size_t> counts;
    for (const BlockPattern& pattern : patterns) {
        for (int r = 0; r < pattern.rows(); ++r) {
            counts.push_back(pattern.row(r).size());
        }
    }
    std::sort(counts.begin(), counts.end());
    return fmt::format("{} to {}, median {}", counts.front(), counts.back(),
                       counts[counts.size() / 2]);
}

std::string layer_facts(const LayerFacts& layer) {
    const HeadPatterns& patterns = layer.patterns;
    std::string html = "<dl>";
    const auto add = [&](std::string_view name, const std::string& value) {
        html += fmt::format("<div><dt>{}</dt><dd>{}</dd></div>", name, escape(value));
    };
    add("density", per_cent(patterns.density()));
    add("blocks",
        fmt::format("{} of {}", patterns.block_count(),
                    std::int64_t{patterns.rows()} * patterns.columns() * patterns.count()));
    add("block edge", std::to_string(patterns.block()));
    add("blocks a row", blocks_a_row(patterns));
    if (patterns.count() > 1) {
        add("heads' patterns", std::to_string(patterns.count()));
        add("fullest head over mean", fmt::format("{:.2f}", patterns.imbalance()));
    }
    if (!layer.programs.empty()) {
        add("rows by class", class_counts(layer.programs.front().program));
    }
    if (layer.forward_ms && layer.backward_ms) {
        add("forward", milliseconds(*layer.forward_ms));
        add("backward", milliseconds(*layer.backward_ms));
    }
    return html + "</dl>";
}

// The maps that the transition rule looked at: all, or as many as fit, evenly chosen.
std::string history_maps(const LayerFacts& layer) {
    constexpr std::size_t kMost = 8;
    const std::size_t count = layer.history.size();
    if (count < 2) return {};
    const std::size_t shown = std::min(count, kMost);
    std::string html = "<h4>Pooled scores over training</h4><div class=\"maps over-time\">";
    for (std::size_t i = 0; i < shown; ++i) {
        const MapFacts& map = layer.history[i * (count - 1) / (shown - 1)];
        html += map_figure(fmt::format("after step {}", map.step),
                           pooled_picture(map.pooled, map.blocks), pooled_note(map.pooled));
    }
    return html + "</div>";
}

// Pattern `index` of a layer: what it was found in, itself, and the walks over it.
std::string pattern_maps(const LayerFacts& layer, int index) {
    const BlockPattern& pattern = layer.patterns[index];
    const auto at = static_cast<std::size_t>(index);
    std::string html = "<div class=\"maps\">";
    if (at < layer.pooled.size() && !layer.pooled[at].empty()) {
        html += map_figure("Pooled scores", pooled_picture(layer.pooled[at], pattern.rows()),
                           pooled_note(layer.pooled[at]));
    }
    html += map_figure("Pattern", pattern_picture(pattern), "queries down, keys across");
    for (const ProgramFacts& program : layer.programs) {
        html += map_figure(results_of(program.program.role),
                           program_picture(program.program, index), program_note(program.program));
    }
    return html + "</div>";
}

std::string layer_block(const LayerFacts& layer, bool is_run) {
    const bool shared = layer.patterns.count() == 1;
    std::string html = fmt::format(
        "<article><h3>{} {}</h3><p>{}{}.</p>", is_run ? "Layer" : "Pattern", layer.layer,
        is_run ? "Kept " : "Has ",
        escape(shared ? describe_pattern(layer.patterns.front()) : density_text(layer.patterns)));
    html += layer_facts(layer);
    if (!layer.tier.empty()) {
        html += "<p class=\"note\">" + escape(layer.tier) + "</p>";
    }
    for (int index = 0; index < layer.patterns.count(); ++index) {
        const BlockPattern& pattern = layer.patterns[index];
        html += shared
                    ? ""
                    : fmt::format("<h4>Head {}: {}, density {}</h4>", index,
                                  escape(describe_pattern(pattern)), per_cent(pattern.density()));
        html += pattern_maps(layer, index);
    }
    return html + history_maps(layer) + "</article>";
}

}  // namespace

std::string map_figure(std::string_view title, const std::string& svg, const std::string& note) {
    return fmt::format("<figure class=\"map\"><figcaption>{}</figcaption>{}<p>{}</p></figure>",
                       escape(title), svg, escape(note));
}

std::string layers_section(const Facts& facts) {
    if (facts.layers.empty()) {
        return {};
    }
    const bool is_run = facts.kind == FolderKind::kRun;
    std::string html = fmt::format("<section id=\"layers\"><h2>{}</h2>",
                                   is_run ? "What each layer learnt" : "What was compiled");
    const bool drawn = std::any_of(facts.layers.begin(), facts.layers.end(),
                                   [](const LayerFacts& l) { return !l.programs.empty(); });
    if (drawn) {
        html +=
            "<p class=\"note\">Tile programs over the pattern: a rectangle is what one step of a "
            "work item computes, its number and colour say when the work item starts "
            "<i class=\"ramp\"></i> (first to last, longest first). Point at a tile for its "
            "numbers.</p>";
    }
    for (const LayerFacts& layer : facts.layers) {
        html += layer_block(layer, is_run);
    }
    return html + "</section>";
}

std::string roofline_section(const Facts& facts) {
    if (!facts.ceilings || facts.roofline.empty()) {
        return {};
    }
    std::string html =
        "<section id=\"roofline\"><h2>How near the hardware's limit</h2><div class=\"roof\">"
        "<figure><figcaption><b>FLOP/s over FLOP per byte</b></figcaption>" +
        roofline_picture(*facts.ceilings, facts.roofline) +
        "</figure><div class=\"scroll\"><table class=\"numbers\"><thead><tr><th>launch</th>"
        "<th>FLOP/B</th><th>time</th><th>reaches</th><th>of roofline</th><th>model: bound by</th>"
        "</tr></thead><tbody>";
    for (const RooflinePoint& point : facts.roofline) {
        html += fmt::format(
            "<tr><th scope=\"row\"><i class=\"layer{}\"></i>{}</th><td>{}</td><td>{}</td>"
            "<td>{}</td><td>{}</td><td>{}</td></tr>",
            point.layer % 4, escape(point.label), three_digits(point.intensity()),
            milliseconds(1e3 * point.seconds), with_unit(point.rate(), "FLOP/s"),
            per_cent(point.rate() / facts.ceilings->attainable(point.intensity())),
            to_string(point.bound));
    }
    const bool measured = facts.roofline.front().measured;
    return html +
           fmt::format(
               "</tbody></table></div></div><p class=\"note\">Ceilings: {} of products, {} of "
               "memory, as the cost model takes them for this device. Bytes: every tensor once; "
               "products: of the pattern's elements alone. {} Batch {}.</p></section>",
               with_unit(facts.ceilings->flop, "FLOP/s"), with_unit(facts.ceilings->memory, "B/s"),
               measured ? "Times are measured: one launch of each layer at the end of the run."
                        : "Times are predicted by the cost model, not measured.",
               facts.batch);
}

}  // namespace spion::inspect
