#include "tools/inspect/text.h"

#include <algorithm>
#include <cmath>

#include "tools/inspect/format.h"

namespace spion::inspect {

std::string printable_text(std::string text) {
    for (char& c : text) {
        const auto byte = static_cast<unsigned char>(c);
        c = byte < 0x20 || byte == 0x7f ? '?' : c;
    }
    return text;
}

namespace {

std::string curve(const Facts& facts, std::string_view split, bool accuracy) {
    std::vector<double> values;
    for (const Measurement& row : facts.measurements) {
        if (row.split == split) {
            values.push_back(accuracy ? 100 * row.accuracy : row.loss);
        }
    }
    if (values.empty()) {
        return {};
    }
    return fmt::format(
        "  {:<20} {}  {} -> {}\n", fmt::format("{} {}", split, accuracy ? "accuracy %" : "loss"),
        sparkline(values), three_digits(values.front()), three_digits(values.back()));
}

std::string step_times(const Facts& facts) {
    std::vector<double> values;
    for (const Measurement& row : facts.measurements) {
        if (row.split == "train" && row.step_ms) {
            values.push_back(*row.step_ms);
        }
    }
    const auto phase = [](double step_ms, double attention_ms) {
        const std::string step = step_ms > 0 ? milliseconds(step_ms) : "-";
        return step_ms > 0 && attention_ms > 0 ? fmt::format("{} (attention on full lengths {})",
                                                             step, milliseconds(attention_ms))
                                               : step;
    };
    return values.empty() ? ""
                          : fmt::format("  {:<20} {}  dense {}, sparse {}; medians\n", "step time",
                                        sparkline(values),
                                        phase(facts.dense_step_ms, facts.dense_attention_ms),
                                        phase(facts.sparse_step_ms, facts.sparse_attention_ms));
}

std::string layer_text(const LayerFacts& layer, int columns) {
    const bool shared = layer.patterns.count() == 1;
    std::string text =
        shared ? "\n" : fmt::format("\nLayer {}: {}\n", layer.layer, density_text(layer.patterns));
    for (int head = 0; head < layer.patterns.count(); ++head) {
        const BlockPattern& pattern = layer.patterns[head];
        text += fmt::format("{} {}: {} of {} blocks of {}, density {}\n{}",
                            shared ? "Layer" : "Head", shared ? layer.layer : head,
                            pattern.block_count(), std::int64_t{pattern.rows()} * pattern.rows(),
                            pattern.block(), per_cent(pattern.density()), pattern.to_art(columns));
    }
    for (const ProgramFacts& program : layer.programs) {
        text += fmt::format("  {:<30} {:>4} tiles of {} x {}, {:>10} predicted, bound by {}{}\n",
                            to_string(program.program.role), program.program.tiles(),
                            program.program.stationary_rows, program.program.streamed_rows,
                            milliseconds(1e3 * program.prediction.seconds),
                            to_string(program.prediction.bound),
                            program.kernel.empty() ? "" : "  -> " + printable_text(program.kernel));
    }
    if (layer.forward_ms && layer.backward_ms) {
        text += fmt::format("  measured: forward {}, backward {}\n",
                            milliseconds(*layer.forward_ms), milliseconds(*layer.backward_ms));
    }
    if (!layer.tier.empty()) {
        text += fmt::format("  {}\n", printable_text(layer.tier));
    }
    return text;
}

std::string optional_text(const std::optional<int>& value) {
    return value ? std::to_string(*value) : "-";
}

std::string kernels_text(const Facts& facts) {
    std::string text =
        fmt::format("\n{:<52} {:>4} {:>9} {:>11} {:>9} {:>5} {:>7} {:>6}\n", "Kernels", "tier",
                    "origin", "compile ms", "code B", "regs", "shared", "spills");
    for (const KernelFacts& kernel : facts.kernels) {
        text += fmt::format("{:<52} {:>4} {:>9} {:>11} {:>9} {:>5} {:>7} {:>6}\n",
                            printable_text(kernel.name), kernel.tier.empty() ? "-" : kernel.tier,
                            kernel.origin.empty() ? "-" : printable_text(kernel.origin),
                            kernel.compile_ms ? fmt::format("{:.1f}", *kernel.compile_ms) : "-",
                            kernel.code_bytes, optional_text(kernel.registers),
                            optional_text(kernel.shared_bytes), optional_text(kernel.spill_bytes));
    }
    return text;
}

std::string roofline_text(const Facts& facts) {
    if (!facts.ceilings || facts.roofline.empty()) {
        return {};
    }
    std::string text = fmt::format("\nRoofline: {} of products, {} of memory\n",
                                   with_unit(facts.ceilings->flop, "FLOP/s"),
                                   with_unit(facts.ceilings->memory, "B/s"));
    for (const RooflinePoint& point : facts.roofline) {
        text += fmt::format("  {:<20} {:>9} FLOP/B {:>14} {:>12} {:>9}  {}\n", point.label,
                            three_digits(point.intensity()), with_unit(point.rate(), "FLOP/s"),
                            milliseconds(1e3 * point.seconds),
                            per_cent(point.rate() / facts.ceilings->attainable(point.intensity())),
                            point.measured ? "measured" : "predicted");
    }
    return text;
}

}  // namespace

std::string sparkline(std::span<const double> values, int width) {
    static constexpr const char* kBars[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    const std::size_t cells = std::min(values.size(), static_cast<std::size_t>(width));
    std::vector<double> means;
    for (std::size_t i = 0; i < cells; ++i) {
        const std::size_t begin = i * values.size() / cells, end = (i + 1) * values.size() / cells;
        double sum = 0;
        for (std::size_t k = begin; k < end; ++k) {
            sum += values[k];
        }
        means.push_back(sum / static_cast<double>(end - begin));
    }
    double low = INFINITY, high = -INFINITY;
    for (const double mean : means) {
        if (std::isfinite(mean)) {
            low = std::min(low, mean);
            high = std::max(high, mean);
        }
    }
    std::string text;
    for (const double mean : means) {
        if (!std::isfinite(mean)) {
            text += "?";
            continue;
        }
        const double share = high > low ? (mean - low) / (high - low) : 0;
        text += kBars[static_cast<int>(std::lround(share * 7))];
    }
    return text;
}

std::string to_text(const Facts& facts, int columns) {
    std::string text;
    for (const std::string& answer : facts.findings) {
        text += printable_text(answer) + "\n";
    }
    for (const std::string& absent : facts.absent) {
        text += printable_text(absent) + "\n";
    }
    if (!facts.measurements.empty()) {
        text += "\nCurves\n" + curve(facts, "train", false) + curve(facts, "validation", false) +
                curve(facts, "train", true) + curve(facts, "validation", true) + step_times(facts);
    }
    for (const LayerFacts& layer : facts.layers) {
        text += layer_text(layer, columns);
    }
    text += roofline_text(facts) + kernels_text(facts);
    if (!facts.settings.empty()) {
        text += "\nSettings\n";
    }
    for (const auto& [name, value] : facts.settings) {
        text += fmt::format("  {:<24} {}\n", printable_text(name), printable_text(value));
    }
    return text;
}

}  // namespace spion::inspect
