#include "tools/inspect/page.h"

#include <fmt/format.h>

#include <filesystem>
#include <tuple>

#include "tools/inspect/format.h"
#include "tools/inspect/page_files.h"
#include "tools/inspect/svg.h"

namespace spion::inspect {
namespace {

using Value = double (*)(const Measurement&);

double loss_of(const Measurement& row) {
    return row.loss;
}
double accuracy_of(const Measurement& row) {
    return 100 * row.accuracy;
}

Series series_of(const Facts& facts, std::string_view split, Value value, bool dots) {
    Series series{
        .name = std::string(split), .style = std::string(split), .points = {}, .dots = dots};
    for (const Measurement& row : facts.measurements) {
        if (row.split == split) {
            series.points.emplace_back(static_cast<double>(row.step), value(row));
        }
    }
    return series;
}

// Step times or learning rates, where a row has one.
Series optional_series(const Facts& facts, std::string name, std::string style,
                       std::optional<double> Measurement::*field, std::optional<Phase> phase) {
    Series series{.name = std::move(name), .style = std::move(style), .points = {}};
    for (const Measurement& row : facts.measurements) {
        if (row.split == "train" && row.*field && (!phase || row.phase == *phase)) {
            series.points.emplace_back(static_cast<double>(row.step), *(row.*field));
        }
    }
    return series;
}

// The first steps warm up caches and allocators: beyond five medians a value would flatten the
// rest.
void cut_peaks(Series& series, double typical) {
    if (typical > 0) {
        std::erase_if(series.points, [&](const auto& point) { return point.second > 5 * typical; });
    }
}

std::string curves_section(const Facts& facts) {
    if (facts.measurements.empty()) {
        return {};
    }
    const double mark = facts.transition_step ? static_cast<double>(*facts.transition_step) : -1.0;
    const auto chart = [&](std::string title, std::string unit, std::vector<Series> series) {
        return chart_figure({.title = std::move(title),
                             .y_unit = std::move(unit),
                             .series = std::move(series),
                             .mark_x = mark,
                             .mark = "sparse from here"});
    };
    Series dense = optional_series(facts, "dense", "dense", &Measurement::step_ms, Phase::kDense);
    Series sparse =
        optional_series(facts, "sparse", "sparse", &Measurement::step_ms, Phase::kSparse);
    cut_peaks(dense, facts.dense_step_ms);
    cut_peaks(sparse, facts.sparse_step_ms);
    return "<section id=\"curves\"><h2>Curves</h2><div class=\"charts\">" +
           chart("Loss", "",
                 {series_of(facts, "train", loss_of, false),
                  series_of(facts, "validation", loss_of, true)}) +
           chart("Accuracy", "%",
                 {series_of(facts, "train", accuracy_of, false),
                  series_of(facts, "validation", accuracy_of, true)}) +
           chart("Step time", "ms", {std::move(dense), std::move(sparse)}) +
           chart("Learning rate", "",
                 {optional_series(facts, "learning rate", "train", &Measurement::learning_rate,
                                  std::nullopt)}) +
           "</div></section>";
}

std::string step_row(std::string_view name, double attention, double total, double whole,
                     std::string_view style) {
    std::vector<Share> shares;
    std::string note = milliseconds(total);
    if (attention > 0 && attention < total) {
        shares = {{.name = "attention", .style = "attention", .value = attention},
                  {.name = "everything else", .style = "rest", .value = total - attention}};
        note += fmt::format(": attention {}, everything else {}", milliseconds(attention),
                            milliseconds(total - attention));
    } else {
        shares = {{.name = std::string(name), .style = std::string(style), .value = total}};
    }
    return fmt::format("<div class=\"step\"><span>{}</span>{}<span>{}</span></div>", name,
                       bar(shares, whole), note);
}

std::string step_section(const Facts& facts) {
    if (facts.dense_step_ms <= 0 && facts.sparse_step_ms <= 0) {
        return {};
    }
    const double whole = std::max(facts.dense_step_ms, facts.sparse_step_ms);
    std::string html = "<section id=\"step\"><h2>Where a step's time goes</h2>";
    if (facts.dense_step_ms > 0) {
        html += step_row("dense", facts.dense_attention_ms, facts.dense_step_ms, whole, "dense");
    }
    if (facts.sparse_step_ms > 0) {
        html +=
            step_row("sparse", facts.sparse_attention_ms, facts.sparse_step_ms, whole, "sparse");
    }
    html += "<p class=\"note\">Medians over the phase.";
    const bool dense = facts.dense_attention_ms > 0, sparse = facts.sparse_attention_ms > 0;
    if (dense || sparse) {
        html += fmt::format(
            " Attention: one launch of each layer, forward and backward, for {} samples of full "
            "length, timed alone at the end; padded samples cost less inside a step.",
            facts.batch);
    }
    for (const auto& [phase, step_ms, recorded] :
         {std::tuple("dense", facts.dense_step_ms, dense),
          std::tuple("sparse", facts.sparse_step_ms, sparse)}) {
        if (step_ms > 0 && !recorded) {
            html += fmt::format(" Attention alone was not timed {}.", phase);
        }
    }
    return html + "</p></section>";
}

std::string row(std::string_view name, const std::string& value) {
    return fmt::format("<tr><th scope=\"row\">{}</th><td>{}</td></tr>", escape(name),
                       escape(value));
}

std::string machine_table(const Facts& facts) {
    std::string html = "<table class=\"facts\"><caption>Machine</caption>";
    const auto add = [&](std::string_view name, const std::string& value) {
        html += value.empty() ? "" : row(name, value);
    };
    add("device", facts.device);
    add("compiler", facts.compiler);
    if (facts.target) {
        const bool cuda = facts.target->back_end == BackEnd::kCuda;
        add("target", facts.target->arch);
        add(cuda ? "multiprocessors" : "threads", std::to_string(facts.target->sm_count));
        add(cuda ? "shared memory a block" : "fp32 lanes",
            cuda ? fmt::format("{} KiB", facts.target->shared_bytes_per_block / 1024)
                 : std::to_string(facts.target->vector_floats));
    }
    if (facts.peak_bytes > 0) {
        add("peak device memory", with_unit(static_cast<double>(facts.peak_bytes), "B"));
    }
    if (facts.compiled + facts.from_disk > 0) {
        add("kernels compiled", std::to_string(facts.compiled));
        add("kernels from the cache", std::to_string(facts.from_disk));
    }
    return html + "</table>";
}

std::string settings_section(const Facts& facts) {
    std::string html =
        "<section id=\"settings\"><h2>Machine and settings</h2><div class=\"tables\">" +
        machine_table(facts);
    const std::size_t half = (facts.settings.size() + 1) / 2;
    for (std::size_t i = 0; i < facts.settings.size(); ++i) {
        if (i == 0 || i == half) {
            html += i == 0 ? "<table class=\"facts\"><caption>Settings</caption>"
                           : "</table><table class=\"facts\"><caption>&nbsp;</caption>";
        }
        const auto& [name, value] = facts.settings[i];
        html += row(name, value.empty() ? "\xE2\x80\x93" : value);
    }
    return html + (facts.settings.empty() ? "" : "</table>") + "</div></section>";
}

std::string answers_section(const Facts& facts) {
    std::string html = "<section id=\"answers\"><h2>In short</h2><ul class=\"answers\">";
    for (const std::string& answer : facts.findings) {
        html += "<li>" + escape(answer) + "</li>";
    }
    html += "</ul>";
    if (!facts.absent.empty()) {
        html += "<ul class=\"absent\">";
        for (const std::string& absent : facts.absent) {
            html += "<li>" + escape(absent) + "</li>";
        }
        html += "</ul>";
    }
    return html + "</section>";
}

}  // namespace

std::string chart_figure(const Chart& chart) {
    std::string legend;
    for (const Series& series : chart.series) {
        if (!series.points.empty()) {
            legend += fmt::format("<span><i class=\"{}\"></i>{}</span>", escape(series.style),
                                  escape(series.name));
        }
    }
    return fmt::format(
        "<figure><figcaption><b>{}</b><span class=\"legend\">{}</span></figcaption>{}</figure>",
        escape(chart.title), legend, line_chart(chart));
}

std::string page_begin(std::string_view name, std::string_view kind, std::string_view device) {
    std::string html = fmt::format(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
        "<link rel=\"icon\" href=\"data:,\"><title>{} \xC2\xB7 spion</title>\n<style>\n",
        escape(name));
    html += find_embedded("page.css")->text;
    return html +
           fmt::format(
               "</style></head>\n<body><header><p class=\"kind\">spion \xC2\xB7 {}</p><h1>{}</h1>"
               "<p class=\"device\">{}</p></header>\n<main>\n",
               kind, escape(name), escape(device));
}

std::string page_end() {
    return fmt::format("</main>\n<script>\n{}</script></body></html>\n",
                       find_embedded("page.js")->text);
}

std::string to_html(const Facts& facts) {
    std::string name = std::filesystem::path(facts.path).lexically_normal().filename().string();
    if (name.empty()) {
        name = std::filesystem::path(facts.path).parent_path().filename().string();
    }
    const std::string kind = facts.kind == FolderKind::kRun ? "training run" : "compiled kernels";
    std::string html = page_begin(name, kind, facts.device);
    for (const std::string& section :
         {answers_section(facts), curves_section(facts), step_section(facts), layers_section(facts),
          roofline_section(facts), kernels_section(facts), settings_section(facts)}) {
        html += section.empty() ? "" : section + "\n";
    }
    return html + page_end();
}

}  // namespace spion::inspect
