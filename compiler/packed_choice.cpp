// Which of a pattern's tiles win where they may be packed: tile_candidates.h.
#include <algorithm>

#include "compiler/packing.h"
#include "compiler/tile_candidates.h"
#include "ir/error.h"

namespace spion {

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

TileShape choose_tiles_for(const Attention& attention, const BlockPattern& pattern, KernelRole role,
                           const Target& target, std::optional<int> packed_rows,
                           std::int64_t batch) {
    const TileShape plain = choose_tiles(attention, pattern.block(), role, target);
    if (packed_rows == 1 || (!packed_rows && packings(pattern.block(), target).empty())) {
        return plain;
    }
    if (packed_rows) {
        packed_shape(plain, pattern.block(), *packed_rows, target);  // throws what is out of range
    }
    const auto candidates = tile_candidates(attention, pattern, role, target, batch, packed_rows);
    const TileCandidate* const packed = best_packed(candidates);
    if (packed_rows && packed == nullptr) {
        throw UserError(
            "{} block rows of {} in a tile of {} for D={} {} do not fit {} ({}): pack fewer rows",
            *packed_rows, pattern.block(), to_string(role), attention.head_dim,
            to_string(attention.dtype), target.arch, candidates.back().infeasible);
    }
    return packed_rows || packing_pays(candidates, plain) ? packed->shape : plain;
}

}  // namespace spion
