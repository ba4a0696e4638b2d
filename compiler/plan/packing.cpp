#include "compiler/plan/packing.h"

#include <algorithm>

#include "ir/error.h"

namespace spion {
namespace {

int most_rows(const KernelCase& launch, KernelFamilies families, bool that_can_pay) {
    int most = 1;
    for (const KernelFamily* family : families_for(launch.role, families)) {
        if (family->why_not(launch).empty() && (family->packing_can_pay || !that_can_pay)) {
            most = std::max(most, family->most_packed_rows(launch.block));
        }
    }
    return most;
}

}  // namespace

double streamed_share(const HeadPatterns& patterns, int rows) {
    std::int64_t streamed = 0;
    for (const BlockPattern& walked : patterns) {
        for (int first = 0; first < walked.rows(); first += rows) {
            std::vector<bool> used(static_cast<std::size_t>(walked.columns()));
            for (int row = first; row < std::min(first + rows, walked.rows()); ++row) {
                for (const std::int32_t block : walked.row(row)) {
                    used[static_cast<std::size_t>(block)] = true;
                }
            }
            streamed += std::count(used.begin(), used.end(), true);
        }
    }
    const std::int64_t alone = patterns.block_count();
    return alone == 0 ? 1 : static_cast<double>(streamed) / static_cast<double>(alone);
}

std::vector<int> packings(const KernelCase& launch, KernelFamilies families) {
    std::vector<int> rows;
    for (int count = 2; count <= most_rows(launch, families, true); count *= 2) {
        rows.push_back(count);
    }
    return rows;
}

void require_packable(const KernelCase& launch, int rows, KernelFamilies families) {
    const int most = most_rows(launch, families, false);
    if (most < 2) {
        throw UserError("blocks of {} cannot share a tile on {}: leave packing out", launch.block,
                        launch.target.arch);
    }
    if (rows < 2 || rows > most) {
        throw UserError("{} block rows a tile: give 2 to {} for blocks of {} on {}, or 1 for none",
                        rows, most, launch.block, launch.target.arch);
    }
}

const TileCandidate* best_packed(const std::vector<TileCandidate>& candidates) {
    const TileCandidate* best = nullptr;
    for (const TileCandidate& candidate : candidates) {
        if (candidate.shape.packed_rows > 1 && candidate.prediction &&
            (best == nullptr || candidate.prediction->seconds < best->prediction->seconds)) {
            best = &candidate;
        }
    }
    return best;
}

bool packing_pays(const std::vector<TileCandidate>& candidates, const TileShape& plain) {
    const TileCandidate* const packed = best_packed(candidates);
    return packed != nullptr && std::ranges::none_of(candidates, [&](const auto& rival) {
               const double margin = rival.shape == plain ? kMargin : 0;
               return rival.prediction && rival.shape.packed_rows == 1 &&
                      rival.prediction->seconds < packed->prediction->seconds * (1 + margin);
           });
}

}  // namespace spion
