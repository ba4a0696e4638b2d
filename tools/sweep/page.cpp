#include "tools/sweep/page.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "tools/inspect/format.h"
#include "tools/inspect/page_files.h"
#include "tools/inspect/svg.h"

namespace spion::sweep {
namespace {

using inspect::escape;

// Beside page.css: a colour an arm, in their order.
constexpr const char* kStyle = R"(
.arm0 { --hue: var(--accent); } .arm1 { --hue: var(--second); } .arm2 { --hue: var(--third); }
.arm3 { --hue: var(--fourth); } .arm4 { --hue: var(--early); } .arm5 { --hue: var(--late); }
.arm6 { --hue: var(--soft); } .arm7 { --hue: var(--ink); }
path[class*="arm"], line[class*="arm"] { stroke: var(--hue); stroke-width: 1.8; }
circle[class*="arm"] { fill: var(--hue); } .legend i[class*="arm"] { background: var(--hue); }
.numbers td.name { text-align: left; }
)";
constexpr std::size_t kColours = 8;

std::string label_of(const Row& row) {
    return row.rate.empty() ? row.arm : fmt::format("{}, lr {}", row.arm, row.rate);
}

std::string style_of(std::size_t arm) {
    return fmt::format("arm{}", arm % kColours);
}

// Test accuracies of a task's rows, a line each: the mean, its standard error, and each seed.
std::string accuracy_picture(const std::vector<const Row*>& rows) {
    double low = INFINITY, high = -INFINITY;
    for (const Row* row : rows) {
        for (const RunResult* result : row->results) {
            if (!result->best_test) continue;
            low = std::min(low, 100 * *result->best_test);
            high = std::max(high, 100 * *result->best_test);
        }
    }
    if (low > high) return "<p class=\"absent\">No run has ended yet.</p>";
    const double pad = std::max(0.5, 0.1 * (high - low));
    low -= pad;
    high += pad;
    constexpr double kWidth = 640, kLeft = 150, kRight = 70, kStep = 26;
    const auto x_at = [&](double value) {
        const double share = std::clamp((value - low) / (high - low), 0.0, 1.0);
        return kLeft + share * (kWidth - kLeft - kRight);
    };
    std::string svg = fmt::format(
        "<svg class=\"chart\" viewBox=\"0 0 {:.0f} {:.0f}\" role=\"img\" "
        "aria-label=\"Test accuracy\">",
        kWidth, kStep * static_cast<double>(rows.size()) + 8);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const Row& row = *rows[i];
        const double y = kStep * static_cast<double>(i) + 18;
        const std::string style = style_of(i);
        svg += fmt::format(
            "<text class=\"axis\" x=\"{:.0f}\" y=\"{:.1f}\" text-anchor=\"end\">{}"
            "</text><line class=\"grid\" x1=\"{:.0f}\" x2=\"{:.0f}\" y1=\"{:.1f}\" "
            "y2=\"{:.1f}\"/>",
            kLeft - 10, y + 4, escape(label_of(row)), kLeft, kWidth - kRight, y, y);
        for (const RunResult* result : row.results) {
            if (!result->best_test) continue;
            svg += fmt::format(
                "<circle class=\"{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.5\" "
                "opacity=\"0.5\"/>",
                style, x_at(100 * *result->best_test), y);
        }
        if (row.best_test.count == 0) continue;
        const double error = row.best_test.error.value_or(0), mean = row.best_test.mean;
        svg += fmt::format(
            "<line class=\"{}\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" "
            "y2=\"{:.1f}\"/><circle class=\"{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" "
            "r=\"5\"><title>{} %</title></circle><text class=\"axis\" x=\"{:.0f}\" "
            "y=\"{:.1f}\">{:.2f} %</text>",
            style, x_at(mean - error), x_at(mean + error), y, y, style, x_at(mean), y,
            spread_text(row.best_test, 2), kWidth - kRight + 10, y + 4, mean);
    }
    return svg + "</svg>";
}

// Validation accuracy by step, the mean of the seeds that have been there.
inspect::Series curve_of(const Row& row, const std::string& style) {
    std::map<double, std::pair<double, int>> sums;
    for (const RunResult* result : row.results) {
        for (const auto& [step, accuracy] : result->curve) {
            sums[step].first += accuracy;
            ++sums[step].second;
        }
    }
    inspect::Series series{.name = label_of(row), .style = style, .points = {}};
    for (const auto& [step, sum] : sums) {
        series.points.emplace_back(step, sum.first / sum.second);
    }
    return series;
}

std::string figure(const std::string& title, const std::string& legend,
                   const std::string& picture) {
    return fmt::format(
        "<figure><figcaption><b>{}</b><span class=\"legend\">{}</span></figcaption>{}</figure>",
        title, legend, picture);
}

std::string row_html(const std::vector<std::string>& cells, const char* first) {
    std::string html = fmt::format("<tr><th scope=\"row\">{}</th>", first);
    for (const std::string& cell : cells) html += "<td>" + escape(cell) + "</td>";
    return html + "</tr>";
}

std::string table_html(const std::vector<const Row*>& rows) {
    std::string html =
        "<div class=\"scroll\"><table class=\"numbers\"><thead><tr><th>arm</th><th>seeds</th>"
        "<th>best checkpoint, %</th><th>last step, %</th><th>ms a step</th><th>density</th>"
        "<th>memory, GiB</th><th>minutes</th><th>to the best</th></tr></thead><tbody>";
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const Row& row = *rows[i];
        const std::string name =
            fmt::format("<i class=\"{}\" style=\"background: var(--hue)\"></i>{}", style_of(i),
                        escape(label_of(row)));
        html += row_html(
            {row.done == row.runs ? std::to_string(row.runs)
                                  : fmt::format("{} of {}", row.done, row.runs),
             spread_text(row.best_test, 2), spread_text(row.last_test, 2),
             spread_text(row.step_ms, 2), spread_text(row.density, 3), spread_text(row.peak_gib, 2),
             spread_text(row.minutes, 1), spread_text(row.minutes_to_best, 1)},
            name.c_str());
    }
    return html + "</tbody></table></div>";
}

std::string task_section(const std::string& task, const std::vector<const Row*>& rows) {
    std::vector<inspect::Series> curves;
    std::string legend;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        curves.push_back(curve_of(*rows[i], style_of(i)));
        legend += fmt::format("<span><i class=\"{}\"></i>{}</span>", style_of(i),
                              escape(label_of(*rows[i])));
    }
    return fmt::format(
        "<section id=\"{0}\"><h2>{0}</h2>{1}<div class=\"charts\">{2}{3}</div></section>\n",
        escape(task), table_html(rows),
        figure("Test accuracy of the best checkpoint", "", accuracy_picture(rows)),
        figure("Validation accuracy", legend,
               inspect::line_chart(
                   {.title = "Validation accuracy", .y_unit = "%", .series = std::move(curves)})));
}

std::string runs_section(const Plan& plan, const std::vector<RunResult>& results) {
    std::string html =
        "<section id=\"runs\"><h2>Runs</h2><div class=\"scroll\"><table class=\"numbers\"><thead>"
        "<tr><th>run</th><th>state</th><th>steps</th><th>best, %</th><th>last, %</th>"
        "<th>density</th><th>ms a step</th><th>minutes</th></tr></thead><tbody>";
    const auto per_cent = [](const std::optional<double>& accuracy) {
        return accuracy ? fmt::format("{:.2f}", 100 * *accuracy) : std::string();
    };
    for (std::size_t i = 0; i < results.size(); ++i) {
        const RunResult& r = results[i];
        const bool known = r.is_done();
        html += row_html({r.state, std::to_string(r.steps), per_cent(r.best_test),
                          per_cent(r.last_test), known ? fmt::format("{:.3f}", r.density()) : "",
                          known ? inspect::three_digits(r.step_ms()) : "",
                          fmt::format("{:.1f}", r.seconds / 60)},
                         escape(plan.runs[i].name).c_str());
    }
    return html + "</tbody></table></div></section>\n";
}

std::string devices_of(const std::vector<RunResult>& results) {
    std::vector<std::string> devices;
    for (const RunResult& result : results) {
        if (!result.device.empty() &&
            std::find(devices.begin(), devices.end(), result.device) == devices.end()) {
            devices.push_back(result.device);
        }
    }
    return fmt::format("{}", fmt::join(devices, "; "));
}

}  // namespace

std::string to_html(const std::string& name, const Plan& plan,
                    const std::vector<RunResult>& results, const std::vector<Row>& rows) {
    std::string html = fmt::format(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
        "<link rel=\"icon\" href=\"data:,\"><title>{0} \xC2\xB7 spion</title>\n<style>\n{1}{2}"
        "</style></head>\n<body><header><p class=\"kind\">spion \xC2\xB7 sweep</p><h1>{0}</h1>"
        "<p class=\"device\">{3}</p></header>\n<main>\n"
        "<p class=\"note\">Mean \xC2\xB1 standard error over seeds, of runs that are done. The "
        "best "
        "checkpoint is the best by validation; small dots are seeds.</p>\n",
        escape(name), inspect::find_embedded("page.css")->text, kStyle,
        escape(devices_of(results)));
    std::vector<std::string> tasks;
    for (const Row& row : rows) {
        if (tasks.empty() || tasks.back() != row.task) tasks.push_back(row.task);
    }
    for (const std::string& task : tasks) {
        std::vector<const Row*> of_task;
        for (const Row& row : rows) {
            if (row.task == task) of_task.push_back(&row);
        }
        html += task_section(task, of_task);
    }
    html += runs_section(plan, results);
    html += fmt::format(
        "<section id=\"file\"><h2>The sweep's file</h2><pre>{}</pre></section>\n</main>\n<script>\n"
        "{}</script></body></html>\n",
        escape(plan.text), inspect::find_embedded("page.js")->text);
    return html;
}

}  // namespace spion::sweep
