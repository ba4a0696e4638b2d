// The sentences at the top of the page, from the numbers alone.
#include <fmt/ranges.h>

#include <algorithm>
#include <string>

#include "tools/inspect/analyse.h"
#include "tools/inspect/format.h"

namespace spion::inspect {
namespace {

std::string outcome(const Facts& facts) {
    std::string text = fmt::format("{} {} of {} steps{}",
                                   facts.interrupted ? "Interrupted after"
                                   : facts.ended     ? "Trained"
                                                     : "Unfinished: at",
                                   facts.steps, facts.planned_steps,
                                   facts.device.empty() ? "" : " on " + facts.device);
    if (facts.test) {
        text += fmt::format("; test accuracy {}, loss {:.3f}", per_cent(facts.test->second),
                            facts.test->first);
    } else if (facts.validation) {
        text += fmt::format("; last validation accuracy {}, loss {:.3f}",
                            per_cent(facts.validation->second), facts.validation->first);
    }
    return text + ".";
}

std::string transition(const Facts& facts) {
    if (!facts.transition_step) {
        return "Training stayed dense; no pattern was discovered.";
    }
    std::string text = fmt::format("It turned sparse after step {}", *facts.transition_step);
    if (facts.dense_step_ms > 0 && facts.sparse_step_ms > 0) {
        const double ratio = facts.dense_step_ms / facts.sparse_step_ms;
        text += fmt::format(": a step went from {} to {}, {}", milliseconds(facts.dense_step_ms),
                            milliseconds(facts.sparse_step_ms),
                            ratio >= 1 ? fmt::format("{:.2f} times faster", ratio)
                                       : fmt::format("{:.2f} times slower", 1 / ratio));
    }
    if (facts.stall_ms) {
        text +=
            fmt::format("; between the two it stood still for {}", milliseconds(*facts.stall_ms));
    }
    return text + ".";
}

std::string generated(const LayerFacts& layer) {
    std::vector<std::string> tiles;
    for (const ProgramFacts& program : layer.programs) {
        tiles.push_back(
            fmt::format("{} x {}", program.program.stationary_rows, program.program.streamed_rows));
    }
    std::sort(tiles.begin(), tiles.end());
    tiles.erase(std::unique(tiles.begin(), tiles.end()), tiles.end());
    std::string text;
    if (!tiles.empty()) {
        const TileProgram& first = layer.programs.front().program;
        text = fmt::format(" Generated: {} kernel{} on {} units in {}, tiles of {}",
                           layer.programs.size(), layer.programs.size() == 1 ? "" : "s",
                           to_string(first.unit), to_string(first.attention.dtype),
                           fmt::join(tiles, ", "));
        text += first.tables == Tables::kBaked ? ", the pattern in the source."
                                               : ", the pattern passed as tables.";
    }
    return text;
}

// How far a layer's times are from the roofline and what holds them back.
std::string limit(const Facts& facts, int layer) {
    std::string text;
    for (const RooflinePoint& point : facts.roofline) {
        if (point.layer != layer || !facts.ceilings) {
            continue;
        }
        const double ceiling = facts.ceilings->attainable(point.intensity());
        const double share = point.rate() / ceiling;
        const bool memory = ceiling < facts.ceilings->flop;
        std::string what = point.label.substr(point.label.find(' ', 6) + 1);
        what[0] = what[0] == 'f' ? 'F' : what[0] == 'b' ? 'B' : what[0];  // dQ stays
        text += fmt::format(
            " {} {} in {}: {} of the {} that {} allows ({}).", what,
            point.measured ? "runs" : "is predicted to run", milliseconds(1e3 * point.seconds),
            share < 0.001 ? "under 0.1 %" : per_cent(share), with_unit(ceiling, "FLOP/s"),
            memory ? "memory" : "arithmetic", describe_share(share, point.bound));
    }
    return text;
}

std::string kernels(const Facts& facts) {
    double compile_ms = 0, waited = 0;
    int spilling = 0;
    for (const KernelFacts& kernel : facts.kernels) {
        compile_ms += kernel.compile_ms.value_or(0);
        waited += kernel.lookup_ms.value_or(0);
        spilling += kernel.spill_bytes.value_or(0) > 0 ? 1 : 0;
    }
    std::string text = fmt::format("{} kernels are here", facts.kernels.size());
    if (facts.compiled + facts.from_disk > 0) {
        text += fmt::format(
            ": {} compiled in this run, {} from the cache; the lookups add up to "
            "{} (they overlap)",
            facts.compiled, facts.from_disk, milliseconds(waited));
    } else if (compile_ms > 0) {
        text += fmt::format(", compiled in {} in all", milliseconds(compile_ms));
    }
    return text + (spilling == 0 ? "." : fmt::format("; {} of them spill registers.", spilling));
}

// Every diagonal block, one block off it, whole columns: what is left after each.
struct Composition {
    int diagonal = 0, beside = 0, elsewhere = 0;
    std::vector<int> hubs;  // columns that at least half the rows see
    int in_hubs = 0;        // blocks of hubs that are not on or beside the diagonal
};

Composition compose(const BlockPattern& pattern) {
    Composition found;
    const BlockPattern columns = pattern.transpose();
    for (int c = 0; c < pattern.rows(); ++c) {
        if (2 * static_cast<int>(columns.row(c).size()) >= pattern.rows() && pattern.rows() > 4) {
            found.hubs.push_back(c);
        }
    }
    for (int r = 0; r < pattern.rows(); ++r) {
        for (const std::int32_t c : pattern.row(r)) {
            if (c == r) {
                ++found.diagonal;
            } else if (std::binary_search(found.hubs.begin(), found.hubs.end(), c)) {
                ++found.in_hubs;
            } else if (c == r - 1 || c == r + 1) {
                ++found.beside;
            } else {
                ++found.elsewhere;
            }
        }
    }
    return found;
}

}  // namespace

std::string describe_share(double share, Bound bound) {
    constexpr double kNear = 0.8, kHalf = 0.5;
    if (share >= kNear) {
        return "near the limit";
    }
    return fmt::format("{} the limit; the model sees it bound by {}",
                       share >= kHalf ? "more than half of" : "far from", to_string(bound));
}

std::string describe_pattern(const BlockPattern& pattern) {
    const std::int64_t all = std::int64_t{pattern.rows()} * pattern.rows();
    if (pattern.block_count() == all) {
        return "every block: it is dense";
    }
    if (pattern.block_count() == 0) {
        return "nothing: it is empty";
    }
    const Composition found = compose(pattern);
    std::vector<std::string> parts;
    if (found.diagonal > 0) {
        parts.push_back(
            found.diagonal == pattern.rows()
                ? "the whole diagonal (every query sees its own neighbourhood)"
                : fmt::format("{} of {} diagonal blocks", found.diagonal, pattern.rows()));
    }
    if (found.beside > 0) {
        parts.push_back(fmt::format("{} next to it", found.beside));
    }
    if (!found.hubs.empty()) {
        const int first = found.hubs.front();
        const std::int64_t begin = std::int64_t{first} * pattern.block();
        parts.push_back(found.hubs.size() == 1
                            ? fmt::format("{} in column {} (most queries look at tokens {} to {})",
                                          found.in_hubs, first, begin,
                                          begin + pattern.block_rows(first) - 1)
                            : fmt::format("{} in columns {} that most queries look at",
                                          found.in_hubs, fmt::join(found.hubs, ", ")));
    }
    if (found.elsewhere > 0) {
        parts.push_back(fmt::format("{} scattered", found.elsewhere));
    }
    return fmt::format("{}", fmt::join(parts, ", "));
}

std::vector<std::string> find_answers(const Facts& facts) {
    std::vector<std::string> answers;
    if (facts.kind == FolderKind::kRun) {
        answers.push_back(outcome(facts));
        answers.push_back(transition(facts));
    }
    for (const LayerFacts& layer : facts.layers) {
        const HeadPatterns& patterns = layer.patterns;
        const std::int64_t all = std::int64_t{patterns.rows()} * patterns.columns();
        answers.push_back(fmt::format(
            "{} {} {} {} of {} blocks ({}): {}.{}{}",
            facts.kind == FolderKind::kRun ? "Layer" : "Pattern", layer.layer,
            facts.kind == FolderKind::kRun ? "learnt" : "has", patterns.block_count(),
            all * patterns.count(), per_cent(patterns.density()),
            patterns.count() == 1 ? describe_pattern(patterns.front()) : density_text(patterns),
            generated(layer), limit(facts, layer.layer)));
    }
    if (!facts.kernels.empty()) {
        answers.push_back(kernels(facts));
    }
    return answers;
}

}  // namespace spion::inspect
