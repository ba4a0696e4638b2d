// Kernels: a table, and each one's texts behind a fold.
#include <fmt/format.h>

#include <map>

#include "tools/inspect/format.h"
#include "tools/inspect/highlight.h"
#include "tools/inspect/page.h"
#include "tools/inspect/svg.h"

namespace spion::inspect {
namespace {

// Long disassemblies would make the page heavy; the folder has them whole.
constexpr std::size_t kMostBytes = 200 * 1024;

std::string text_fold(const TextFile& file, bool open) {
    std::string_view text = file.text;
    std::string rest;
    if (text.size() > kMostBytes) {
        text = text.substr(0, text.rfind('\n', kMostBytes) + 1);
        rest = fmt::format(
            "<p class=\"note\">Cut after {} of {} bytes; the whole text is in the "
            "folder.</p>",
            text.size(), file.text.size());
    }
    return fmt::format("<details{}><summary>{}</summary><pre><code>{}</code></pre>{}</details>",
                       open ? " open" : "", escape(file.name),
                       highlight(text, language_of(file.name)), rest);
}

std::string number_or_dash(const std::optional<int>& value) {
    return value ? std::to_string(*value) : "\xE2\x80\x93";
}

std::string origin_text(const KernelFacts& kernel) {
    if (kernel.origin == "disk") {
        return "disk cache";
    }
    return kernel.origin.empty() ? "\xE2\x80\x93" : kernel.origin;
}

std::string table_row(const KernelFacts& kernel, std::size_t index) {
    const auto time = [](const std::optional<double>& value) {
        return value ? milliseconds(*value) : std::string("\xE2\x80\x93");
    };
    return fmt::format(
        "<tr><th scope=\"row\"><a href=\"#kernel{}\">{}</a></th><td>{}</td><td>{}</td><td>{}</td>"
        "<td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
        index, escape(kernel.name), kernel.tier.empty() ? "\xE2\x80\x93" : kernel.tier,
        escape(origin_text(kernel)), time(kernel.lookup_ms), time(kernel.compile_ms),
        kernel.code_bytes > 0 ? std::to_string(kernel.code_bytes) : "\xE2\x80\x93",
        number_or_dash(kernel.registers), number_or_dash(kernel.shared_bytes),
        number_or_dash(kernel.spill_bytes),
        kernel.occupancy ? per_cent(*kernel.occupancy) : "\xE2\x80\x93");
}

// Layers whose programs this kernel runs.
std::string users_of(const Facts& facts, const KernelFacts& kernel) {
    std::string text;
    for (const LayerFacts& layer : facts.layers) {
        for (const ProgramFacts& program : layer.programs) {
            if (program.kernel == kernel.name) {
                text += fmt::format("{}{}", text.empty() ? "" : ", ", layer.layer);
            }
        }
    }
    return text.empty() ? text : "Runs layer " + text + ".";
}

std::string kernel_fold(const Facts& facts, const KernelFacts& kernel, std::size_t index) {
    std::string html = fmt::format(
        "<details class=\"kernel\" id=\"kernel{}\"><summary><code>{}</code><span>{}</span>"
        "</summary><div>",
        index, escape(kernel.name), escape(users_of(facts, kernel)));
    if (kernel.ir.empty()) {
        html += "<p class=\"absent\">No kernel.ir here.</p>";
    } else {
        html += text_fold({.name = "kernel.ir", .text = kernel.ir}, kernel.ir.size() < 4000);
    }
    if (kernel.source.name.empty()) {
        html += "<p class=\"absent\">No source here (kernel.cu or kernel.ll).</p>";
    } else {
        html += text_fold(kernel.source, true);
    }
    for (const TextFile& output : kernel.outputs) {
        html += text_fold(output, false);
    }
    for (const std::string& warning : kernel.warnings) {
        html += "<p class=\"absent\">" + escape(warning) + "</p>";
    }
    if (!kernel.rebuild.empty()) {
        html +=
            "<p>Build it again by hand:</p><pre><code>" + escape(kernel.rebuild) + "</code></pre>";
    }
    if (!kernel.includes.empty()) {
        html += "<p>Includes:";
        for (const TextFile& include : kernel.includes) {
            html +=
                fmt::format(" <a href=\"#include-{0}\"><code>{0}</code></a>", escape(include.name));
        }
        html += "</p>";
    }
    return html + "</div></details>";
}

// Kernels share most of what they include: each text once.
std::string includes_fold(const Facts& facts) {
    std::map<std::string, const TextFile*> distinct;
    for (const KernelFacts& kernel : facts.kernels) {
        for (const TextFile& include : kernel.includes) {
            distinct.emplace(include.name, &include);
        }
    }
    std::string html;
    for (const auto& [name, file] : distinct) {
        html +=
            fmt::format("<div id=\"include-{}\">{}</div>", escape(name), text_fold(*file, false));
    }
    return html.empty() ? html : "<h3>Hand-written bodies that the sources include</h3>" + html;
}

}  // namespace

std::string kernels_section(const Facts& facts) {
    std::string html = "<section id=\"kernels\"><h2>Kernels</h2>";
    if (facts.kernels.empty()) {
        return html + "<p class=\"absent\">There are no kernels in this folder.</p></section>";
    }
    html +=
        "<div class=\"scroll\"><table class=\"numbers\"><thead><tr><th>kernel</th>"
        "<th title=\"0: the pattern is passed as tables, 1: it is in the source\">tier</th>"
        "<th>origin</th>"
        "<th>lookup</th><th>compile</th><th>code B</th><th>registers</th><th>shared B</th>"
        "<th>spill B</th><th>occupancy</th></tr></thead><tbody>";
    for (std::size_t i = 0; i < facts.kernels.size(); ++i) {
        html += table_row(facts.kernels[i], i);
    }
    html +=
        "</tbody></table></div><p class=\"tools\"><button type=\"button\" id=\"expand\" "
        "hidden>Open all kernels</button></p>";
    for (std::size_t i = 0; i < facts.kernels.size(); ++i) {
        html += kernel_fold(facts, facts.kernels[i], i);
    }
    return html + includes_fold(facts) + "</section>";
}

}  // namespace spion::inspect
