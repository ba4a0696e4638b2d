// The printed form of a plan: layer_plan.h.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "compiler/plan/layer_plan.h"
#include "compiler/plan/packing.h"

namespace spion {
namespace {

std::string shape_text(const KernelFamily& family, const TileShape& shape) {
    const bool marked = fetches_by_tma(shape.unit) && !family.mark.empty();
    return fmt::format("{}/{} x{}{}{}{}", shape.stationary_rows, shape.streamed_rows, shape.stages,
                       marked ? " " : "", marked ? family.mark : "",
                       shape.packed_rows > 1 ? fmt::format(" of {}", shape.packed_rows) : "");
}

std::string shape_text(const TileCandidate& candidate) {
    return shape_text(*candidate.family, candidate.shape);
}

const TileCandidate& find(const std::vector<TileCandidate>& candidates, const TileShape& shape) {
    return *std::find_if(candidates.begin(), candidates.end(),
                         [&](const TileCandidate& one) { return one.shape == shape; });
}

std::string heading(const LayerPlan& layer, const LaunchPlan& plan, const HeadPatterns& pattern) {
    return fmt::format(
        "{} on {}, B={}\n{}\npattern: {} of {} x {} blocks of {}, {}\n"
        "tile: stationary rows / streamed rows of a step x steps in flight; res: thread blocks "
        "resident on an SM{}\n"
        "microseconds: four terms that overlap in part, and what they come to\n\n",
        to_string(plan.role), layer.target.arch, plan.batch, to_text(layer.attention),
        pattern.block_count(), pattern.rows(), pattern.columns(), pattern.block(),
        density_text(pattern), plan.packing_weighed ? "; of n: packed, n block rows a tile" : "");
}

std::string row_text(const TileCandidate& candidate, bool won) {
    const std::string start = fmt::format("{} {:<15}", won ? '*' : ' ', shape_text(candidate));
    if (!candidate.prediction) {
        return fmt::format("{} cannot run: {}\n", start, candidate.plan.problem);
    }
    const Prediction& p = *candidate.prediction;
    return fmt::format(
        "{} {:>3} {:>4.0f}% {:>7.1f} {:>8.1f} {:>8.1f} {:>9.2f} {:>8.1f} {:>8.1f} {:>8.1f} "
        "{:>8.1f} {:>8.1f} {:>8.1f}  {}\n",
        start, candidate.plan.blocks, 100 * candidate.plan.occupancy, p.waves,
        p.memory_bytes * 1e-6, p.cache_bytes * 1e-6, p.flop * 1e-9, p.exponentials * 1e-6,
        p.memory_seconds * 1e6, p.cache_seconds * 1e6, p.compute_seconds * 1e6,
        p.latency_seconds * 1e6, p.seconds * 1e6, to_string(p.bound));
}

// Why the winner among tiles that are not packed won.
std::string reason(const TypicalTiles& typical) {
    const TileCandidate& winner = typical.winner();
    const std::string name = shape_text(winner);
    if (typical.ranked.size() == 1) {
        return fmt::format("{} wins: no other tile can run", name);
    }
    const TileCandidate& rival = typical.candidates[typical.ranked[1]];
    const std::string other =
        fmt::format("{} is predicted {}", shape_text(rival),
                    faster_or_slower(winner.prediction->seconds / rival.prediction->seconds));
    if (winner.shape == typical.measured) {
        return fmt::format(
            "{} wins: it has been measured to be good, and the best rival {}, where "
            "to replace it takes {:.0f} %",
            name, other, 100 * kMargin);
    }
    if (!typical.measured) {
        return fmt::format("{} wins: it is predicted fastest; {}", name, other);
    }
    const TileCandidate& measured = find(typical.candidates, *typical.measured);
    return fmt::format("{} wins: {}, measured to be good elsewhere, {}; {}", name,
                       shape_text(measured),
                       measured.prediction ? fmt::format("is predicted more than {:.0f} % slower "
                                                         "here",
                                                         100 * kMargin)
                                           : "cannot run here",
                       other);
}

// Whether this pattern's tiles are packed, and why.
std::string packing(const LaunchPlan& plan, const HeadPatterns& pattern) {
    if (plan.asked_packed_rows == 1) {
        return "not packed, as was asked";
    }
    const TileCandidate* const best = best_packed(plan.candidates);
    if (best == nullptr) {
        return "packing: no tile of several block rows can run";
    }
    const int rows = best->shape.packed_rows;
    const TileCandidate& own = find(plan.candidates, plan.plain());
    const double ratio = own.prediction->seconds / best->prediction->seconds;
    const std::string found = fmt::format(
        "{:.0f} % of the blocks stream past {} block rows a tile; {} is predicted {} than {}",
        100 * streamed_share(walks_columns(plan.role) ? pattern.transpose() : pattern, rows), rows,
        shape_text(*best), faster_or_slower(ratio), shape_text(own));
    if (plan.asked_packed_rows) {
        return fmt::format("packed, as was asked: {}", found);
    }
    if (plan.shape.packed_rows > 1) {
        return fmt::format("packed: {} (--pack 1 leaves that out)", found);
    }
    return ratio > 1 + kMargin
               ? fmt::format("not packed: {}, but others are faster without packing", found)
               : fmt::format("not packed: {}, and to pack takes {:.0f} %", found, 100 * kMargin);
}

// What the pattern itself would have.
std::string hint(const LaunchPlan& plan) {
    const TileCandidate& fastest =
        plan.candidates[rank_candidates(plan.candidates, std::nullopt, 1)[0]];
    const double ratio = plan.prediction->seconds / fastest.prediction->seconds;
    return fastest.shape == plan.shape
               ? "on this pattern it is predicted fastest too"
               : fmt::format("on this pattern {} is predicted {:.1f} % faster: --autotune measures",
                             shape_text(fastest), 100 * (ratio - 1));
}

}  // namespace

std::string faster_or_slower(double ratio) {
    return fmt::format("{:.1f} % {}", 100 * (ratio > 1 ? ratio - 1 : 1 / ratio - 1),
                       ratio > 1 ? "faster" : "slower");
}

std::string explain(const LayerPlan& plan, const LaunchPlan& launch, const HeadPatterns& asked) {
    const HeadPatterns pattern = in_blocks_of(launch, asked);
    std::string text = heading(plan, launch, pattern);
    fmt::format_to(std::back_inserter(text),
                   "  {:<11} {:>3} {:>5} {:>7} {:>8} {:>8} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} "
                   "{:>8}  bound by\n",
                   "tile", "res", "occ", "waves", "mem MB", "L2 MB", "GFLOP", "M exp", "memory",
                   "L2", "compute", "latency", "total");
    for (const TileCandidate& candidate : launch.candidates) {
        text += row_text(candidate, candidate.shape == launch.shape);
    }
    if (launch.typical.candidates.empty()) {
        return text + "\nthe tile was asked for\n";
    }
    fmt::format_to(std::back_inserter(text),
                   "\nranked on B={} and {:.0f} % of the blocks, so that every pattern shares its "
                   "kernels:\n{}\n{}\n",
                   kPlannedBatch, 100 * kPlannedDensity, reason(launch.typical), hint(launch));
    if (launch.packing_weighed) {
        text += packing(launch, pattern) + "\n";
    }
    return text;
}

std::string explain_roles(const LayerPlan& plan) {
    const BackwardPrediction& predicted = plan.backward;
    const bool fused = plan.roles == kFusedBackwardRoles;
    const std::string_view way = fused ? "delta, then all gradients" : "dQ, then dK and dV";
    if (!predicted.fused) {
        return fmt::format(
            "backward: {}; {}\n", way,
            predicted.why_not_fused.empty() ? "as was asked" : predicted.why_not_fused);
    }
    return fmt::format(
        "backward: {}; delta and then all gradients are predicted to take {:.1f} us, dQ and then "
        "dK and dV {:.1f} us (B={}, {:.0f} % of the blocks)\n",
        way, *predicted.fused * 1e6, predicted.split * 1e6, predicted.batch,
        100 * predicted.density);
}

}  // namespace spion
