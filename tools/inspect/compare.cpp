#include "tools/inspect/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <utility>
#include <vector>

#include "tools/inspect/format.h"
#include "tools/inspect/page.h"
#include "tools/inspect/svg.h"
#include "tools/inspect/text.h"

namespace spion::inspect {
namespace {

constexpr std::string_view kNothing = "\xE2\x80\x93";

// The last parts of each path, as many as make all names different.
std::vector<std::string> names_of(std::span<const Facts> runs) {
    std::vector<std::string> names;
    for (std::size_t parts = 1;; ++parts) {
        names.clear();
        bool longer = false;  // some path has more parts
        for (const Facts& run : runs) {
            std::filesystem::path rest = (std::filesystem::path(run.path) / "").parent_path(), name;
            for (std::size_t i = 0; i < parts && rest.has_filename(); ++i) {
                name = name.empty() ? rest.filename() : rest.filename() / name;
                rest = rest.parent_path();
            }
            longer = longer || rest.has_filename();
            names.push_back(name.string());
        }
        std::vector<std::string> sorted = names;
        std::sort(sorted.begin(), sorted.end());
        if (!longer || std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end()) {
            return names;
        }
    }
}

using Row = std::pair<std::string, std::vector<std::string>>;  // what, and each run's value

std::string density_of(const Facts& run) {
    if (run.layers.empty()) return std::string(kNothing);
    double sum = 0;
    for (const LayerFacts& layer : run.layers) sum += layer.patterns.density();
    return per_cent(sum / static_cast<double>(run.layers.size()));
}

std::vector<Row> results_of(std::span<const Facts> runs) {
    std::vector<Row> rows;
    const auto add = [&](std::string name, auto value) {
        std::vector<std::string> values;
        for (const Facts& run : runs) values.push_back(value(run));
        rows.emplace_back(std::move(name), std::move(values));
    };
    const auto or_nothing = [](bool there, const std::string& text) {
        return there ? text : std::string(kNothing);
    };
    add("device", [](const Facts& run) { return run.device; });
    add("steps", [](const Facts& run) {
        return run.planned_steps > run.steps ? fmt::format("{} of {}", run.steps, run.planned_steps)
                                             : std::to_string(run.steps);
    });
    add("turned sparse after", [&](const Facts& run) {
        return or_nothing(run.transition_step.has_value(),
                          std::to_string(run.transition_step.value_or(0)));
    });
    add("density, mean of layers", density_of);
    add("dense step", [&](const Facts& run) {
        return or_nothing(run.dense_step_ms > 0, milliseconds(run.dense_step_ms));
    });
    add("sparse step", [&](const Facts& run) {
        return or_nothing(run.sparse_step_ms > 0, milliseconds(run.sparse_step_ms));
    });
    using Outcome = std::optional<std::pair<double, double>>;  // loss, accuracy
    const auto add_outcome = [&](const std::string& split, Outcome Facts::*outcome) {
        add(split + " loss", [&, outcome](const Facts& run) {
            const Outcome& found = run.*outcome;
            return found ? three_digits(found->first) : std::string(kNothing);
        });
        add(split + " accuracy", [&, outcome](const Facts& run) {
            const Outcome& found = run.*outcome;
            return found ? per_cent(found->second) : std::string(kNothing);
        });
    };
    add_outcome("validation", &Facts::validation);
    add_outcome("test", &Facts::test);
    return rows;
}

// Only those in which runs differ; one that a run does not have counts as a value.
std::vector<Row> settings_of(std::span<const Facts> runs) {
    std::vector<std::string> names;
    for (const Facts& run : runs) {
        for (const auto& [name, value] : run.settings) {
            if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
        }
    }
    std::vector<Row> rows;
    for (const std::string& name : names) {
        std::vector<std::string> values;
        for (const Facts& run : runs) {
            const auto found = std::find_if(run.settings.begin(), run.settings.end(),
                                            [&](const auto& s) { return s.first == name; });
            const bool there = found != run.settings.end() && !found->second.empty();
            values.push_back(there ? found->second : std::string(kNothing));
        }
        const bool same = std::all_of(values.begin(), values.end(),
                                      [&](const std::string& v) { return v == values.front(); });
        if (!same) rows.emplace_back(name, std::move(values));
    }
    return rows;
}

std::string table_html(const std::vector<std::string>& names, const std::vector<Row>& rows) {
    std::string html = "<div class=\"scroll\"><table class=\"numbers\"><thead><tr><th></th>";
    for (std::size_t i = 0; i < names.size(); ++i) {
        html +=
            fmt::format("<th><i class=\"run{}\"></i>{}</th>", i % kRunColours, escape(names[i]));
    }
    html += "</tr></thead><tbody>";
    for (const auto& [name, values] : rows) {
        html += fmt::format("<tr><th scope=\"row\">{}</th>", escape(name));
        for (const std::string& value : values) html += "<td>" + escape(value) + "</td>";
        html += "</tr>";
    }
    return html + "</tbody></table></div>";
}

std::string chart(std::span<const Facts> runs, const std::vector<std::string>& names,
                  std::string title, std::string unit, std::string_view split,
                  double (*value)(const Measurement&)) {
    Chart drawn{.title = std::move(title), .y_unit = std::move(unit), .series = {}, .mark = {}};
    for (std::size_t i = 0; i < runs.size(); ++i) {
        Series series{.name = names[i],
                      .style = fmt::format("run{}", i % kRunColours),
                      .points = {},
                      .dots = split != "train"};
        for (const Measurement& row : runs[i].measurements) {
            if (row.split == split) {
                series.points.emplace_back(static_cast<double>(row.step), value(row));
            }
        }
        drawn.series.push_back(std::move(series));
    }
    return chart_figure(drawn);
}

std::string curves(std::span<const Facts> runs, const std::vector<std::string>& names) {
    const auto loss = [](const Measurement& row) { return row.loss; };
    const auto accuracy = [](const Measurement& row) { return 100 * row.accuracy; };
    const auto step_ms = [](const Measurement& row) { return row.step_ms.value_or(0); };
    return "<section id=\"curves\"><h2>Curves</h2><div class=\"charts\">" +
           chart(runs, names, "Validation accuracy", "%", "validation", accuracy) +
           chart(runs, names, "Validation loss", "", "validation", loss) +
           chart(runs, names, "Training loss", "", "train", loss) +
           chart(runs, names, "Step time", "ms", "train", step_ms) + "</div></section>\n";
}

// The patterns, a row of pictures a layer.
std::string patterns(std::span<const Facts> runs, const std::vector<std::string>& names) {
    int layers = 0;
    for (const Facts& run : runs) {
        for (const LayerFacts& layer : run.layers) layers = std::max(layers, layer.layer + 1);
    }
    if (layers == 0) return {};
    std::string html = "<section id=\"layers\"><h2>What each layer learnt</h2>";
    for (int index = 0; index < layers; ++index) {
        html += fmt::format("<article><h3>Layer {}</h3><div class=\"maps\">", index);
        for (std::size_t i = 0; i < runs.size(); ++i) {
            for (const LayerFacts& layer : runs[i].layers) {
                if (layer.layer != index) continue;
                for (int head = 0; head < layer.patterns.count(); ++head) {
                    const std::string which =
                        layer.patterns.count() == 1 ? "" : fmt::format(" head {}", head);
                    html += map_figure(names[i] + which, pattern_picture(layer.patterns[head]),
                                       "density " + per_cent(layer.patterns[head].density()));
                }
            }
        }
        html += "</div></article>";
    }
    return html + "</section>\n";
}

std::string table_text(const std::vector<std::string>& names, const std::vector<Row>& rows) {
    // Width in characters: the dash for nothing has three bytes.
    const auto width_of = [](const std::string& text) {
        return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
            return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U;
        }));
    };
    std::vector<Row> all = {{"", names}};
    all.insert(all.end(), rows.begin(), rows.end());
    std::vector<std::size_t> widths(names.size() + 1, 0);
    for (const auto& [name, values] : all) {
        widths[0] = std::max(widths[0], width_of(name));
        for (std::size_t i = 0; i < values.size(); ++i) {
            widths[i + 1] = std::max(widths[i + 1], width_of(printable_text(values[i])));
        }
    }
    std::string text;
    for (const auto& [name, values] : all) {
        text += "  " + name + std::string(widths[0] - width_of(name), ' ');
        for (std::size_t i = 0; i < values.size(); ++i) {
            const std::string value = printable_text(values[i]);
            text += "  " + std::string(widths[i + 1] - width_of(value), ' ') + value;
        }
        text += '\n';
    }
    return text;
}

}  // namespace

std::string compare_html(std::span<const Facts> runs) {
    const std::vector<std::string> names = names_of(runs);
    const std::vector<Row> settings = settings_of(runs);
    std::string html =
        page_begin(fmt::format("{} runs", runs.size()), "training runs compared", "");
    html += "<section id=\"answers\"><h2>In short</h2>" + table_html(names, results_of(runs)) +
            "</section>\n" + curves(runs, names) + patterns(runs, names);
    html += "<section id=\"settings\"><h2>Settings that differ</h2>";
    html += settings.empty() ? "<p>None: the runs were given the same settings.</p>"
                             : table_html(names, settings);
    return html + "</section>\n" + page_end();
}

std::string compare_text(std::span<const Facts> runs) {
    const std::vector<std::string> names = names_of(runs);
    const std::vector<Row> settings = settings_of(runs);
    return table_text(names, results_of(runs)) + "\nSettings that differ\n" +
           (settings.empty() ? "  none\n" : table_text(names, settings));
}

}  // namespace spion::inspect
