// The printed form of tile_candidates.h.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "compiler/packing.h"
#include "compiler/tile_candidates.h"

namespace spion {
namespace {

std::string shape_text(const TileShape& shape) {
    return fmt::format("{}/{} x{}{}{}", shape.stationary_rows, shape.streamed_rows, shape.stages,
                       shape.wgmma        ? " wgmma"
                       : shape.warp_items ? " warp"
                                          : "",
                       shape.packed_rows > 1 ? fmt::format(" of {}", shape.packed_rows) : "");
}

std::string heading(const Attention& attention, const BlockPattern& pattern, KernelRole role,
                    const Target& target, std::int64_t batch) {
    return fmt::format(
        "{} on {}, B={}\n{}\npattern: {} of {} x {} blocks of {}, density {:.4f}\n"
        "tile: stationary rows / streamed rows of a step x steps in flight; res: thread blocks "
        "resident on a processor{}\n"
        "microseconds: four terms that overlap in part, and what they come to\n\n",
        to_string(role), target.arch, batch, to_text(attention), pattern.block_count(),
        pattern.rows(), pattern.rows(), pattern.block(), pattern.density(),
        packings(pattern.block(), target).empty() ? "" : "; of n: packed, n block rows a tile");
}

std::string row_text(const TileCandidate& candidate, bool won) {
    const std::string start =
        fmt::format("{} {:<15}", won ? '*' : ' ', shape_text(candidate.shape));
    if (!candidate.prediction) {
        return fmt::format("{} cannot run: {}\n", start, candidate.infeasible);
    }
    const Prediction& p = *candidate.prediction;
    return fmt::format(
        "{} {:>3} {:>4.0f}% {:>7.1f} {:>8.1f} {:>8.1f} {:>9.2f} {:>8.1f} {:>8.1f} {:>8.1f} "
        "{:>8.1f} {:>8.1f} {:>8.1f}  {}\n",
        start, p.residency.blocks, 100 * p.residency.occupancy, p.waves, p.memory_bytes * 1e-6,
        p.cache_bytes * 1e-6, p.flop * 1e-9, p.exponentials * 1e-6, p.memory_seconds * 1e6,
        p.cache_seconds * 1e6, p.compute_seconds * 1e6, p.latency_seconds * 1e6, p.seconds * 1e6,
        to_string(p.bound));
}

// Why the first of `ranked` won.
std::string reason(const std::vector<TileCandidate>& planned,
                   const std::vector<std::size_t>& ranked,
                   const std::optional<TileShape>& measured) {
    const TileCandidate& winner = planned[ranked[0]];
    const std::string name = shape_text(winner.shape);
    if (ranked.size() == 1) {
        return fmt::format("{} wins: no other tile can run", name);
    }
    const TileCandidate& rival = planned[ranked[1]];
    const double ratio = winner.prediction->seconds / rival.prediction->seconds;
    const std::string other =
        fmt::format("{} is predicted {:.1f} % {}", shape_text(rival.shape),
                    100 * (ratio > 1 ? ratio - 1 : 1 / ratio - 1), ratio > 1 ? "faster" : "slower");
    if (winner.shape == measured) {
        return fmt::format(
            "{} wins: it has been measured to be good, and the best rival {}, where "
            "to replace it takes {:.0f} %",
            name, other, 100 * kMargin);
    }
    if (!measured) {
        return fmt::format("{} wins: it is predicted fastest; {}", name, other);
    }
    return fmt::format(
        "{} wins: {}, measured to be good elsewhere, is predicted more than {:.0f} "
        "% slower here; {}",
        name, shape_text(*measured), 100 * kMargin, other);
}

// Whether this pattern's tiles are packed, and why.
std::string packing(const std::vector<TileCandidate>& candidates, const BlockPattern& pattern,
                    KernelRole role, const TileShape& plain, std::optional<int> asked) {
    if (asked == 1) {
        return "not packed, as was asked";
    }
    const TileCandidate* const best = best_packed(candidates);
    if (best == nullptr) {
        return "packing: no tile of several block rows can run";
    }
    const int rows = best->shape.packed_rows;
    const bool by_columns = walks_columns(role);
    const auto own = std::find_if(candidates.begin(), candidates.end(),
                                  [&](const auto& one) { return one.shape == plain; });
    const double ratio = own->prediction->seconds / best->prediction->seconds;
    const std::string found = fmt::format(
        "{:.0f} % of the blocks stream past {} block rows a tile; {} is predicted {:.1f} % {} than "
        "{}",
        100 * streamed_share(by_columns ? pattern.transpose() : pattern, rows), rows,
        shape_text(best->shape), 100 * (ratio > 1 ? ratio - 1 : 1 / ratio - 1),
        ratio > 1 ? "faster" : "slower", shape_text(plain));
    if (asked) {
        return fmt::format("packed, as was asked: {}", found);
    }
    if (packing_pays(candidates, plain)) {
        return fmt::format("packed: {} (--pack 1 leaves that out)", found);
    }
    return ratio > 1 + kMargin
               ? fmt::format("not packed: {}, but others are faster without packing", found)
               : fmt::format("not packed: {}, and to pack takes {:.0f} %", found, 100 * kMargin);
}

// What the pattern itself would have.
std::string hint(const std::vector<TileCandidate>& candidates, const TileShape& chosen) {
    const TileCandidate& fastest = candidates[rank_candidates(candidates, std::nullopt, 1)[0]];
    const auto winner = std::find_if(candidates.begin(), candidates.end(),
                                     [&](const auto& one) { return one.shape == chosen; });
    const double ratio = winner->prediction->seconds / fastest.prediction->seconds;
    return fastest.shape == chosen
               ? "on this pattern it is predicted fastest too"
               : fmt::format("on this pattern {} is predicted {:.1f} % faster: --autotune measures",
                             shape_text(fastest.shape), 100 * (ratio - 1));
}

}  // namespace

std::string explain(const Attention& attention, const BlockPattern& pattern, KernelRole role,
                    const Target& target, std::int64_t batch, std::optional<int> packed_rows) {
    const int block = pattern.block();
    const TileShape plain = choose_tiles(attention, block, role, target);
    const TileShape chosen = choose_tiles_for(attention, pattern, role, target, packed_rows, batch);
    const auto candidates = tile_candidates(attention, pattern, role, target, batch, packed_rows);
    const auto planned = tile_candidates(attention, block, planned_rows(attention.length, block),
                                         role, target, kPlannedBatch, rates_of(target));
    const auto measured = measured_among(planned, attention, block, role, target);
    std::string text = heading(attention, pattern, role, target, batch);
    fmt::format_to(std::back_inserter(text),
                   "  {:<11} {:>3} {:>5} {:>7} {:>8} {:>8} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} "
                   "{:>8}  bound by\n",
                   "tile", "res", "occ", "waves", "mem MB", "L2 MB", "GFLOP", "M exp", "memory",
                   "L2", "compute", "latency", "total");
    for (const TileCandidate& candidate : candidates) {
        text += row_text(candidate, candidate.shape == chosen);
    }
    fmt::format_to(std::back_inserter(text),
                   "\nranked on B={} and {:.0f} % of the blocks, so that every pattern shares its "
                   "kernels:\n{}\n{}\n",
                   kPlannedBatch, 100 * kPlannedDensity,
                   reason(planned, rank_candidates(planned, measured, 2), measured),
                   hint(candidates, chosen));
    if (!packings(block, target).empty()) {
        text += packing(candidates, pattern, role, plain, packed_rows) + "\n";
    }
    return text;
}

}  // namespace spion
