// The typical pattern, that tile shapes are ranked on.
//
// Neither B, a run-time argument, nor the pattern decides a program's tiles: with one choice for
// every pattern of a length and block, the layers of a model, and its dense phase before them, share
// their kernels, and nothing is left to compile when a pattern is found. Shapes are ranked on
// kPlannedBatch samples of a pattern that has kPlannedDensity of the blocks in every row and column,
// two at least. Autotuning (compiler/tune/autotune.h) looks at the pattern itself.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "codegen/kernel_family.h"
#include "compiler/plan/tile_candidates.h"
#include "compiler/plan/walk_summary.h"

namespace spion {

constexpr std::int64_t kPlannedBatch = 32;  // B of a plan that was given none
constexpr double kPlannedDensity = 0.05;
// `length` positions stay, and of `streamed_length` others `density` stream past; 0: as many.
StreamedRows planned_rows(std::int64_t length, int block, std::int64_t streamed_length = 0,
                          double density = kPlannedDensity);

// The tiles of one role on the typical pattern.
struct TypicalTiles {
    std::vector<TileCandidate> candidates;
    std::optional<TileShape> measured;
    std::vector<std::size_t> ranked;  // of candidates: the winner, then the others by their time

    const TileCandidate& winner() const { return candidates[ranked.front()]; }
};
// Throws UserError when none fits, saying what would.
TypicalTiles rank_typical(const KernelCase& launch, KernelFamilies families);

}  // namespace spion
