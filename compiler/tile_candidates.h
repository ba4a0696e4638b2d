// The tile shapes that a kernel could have, what each would cost, and which one wins.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "compiler/cost_model.h"

namespace spion {

// Neither B, a run-time argument, nor the pattern decides a program's tiles: with one choice for
// every pattern of a length and block, the layers of a model, and its dense phase before them,
// share their kernels, and nothing is left to compile when a pattern is found. Shapes are ranked on
// kPlannedBatch samples of a pattern that has kPlannedDensity of the blocks in every row and
// column, two at least. Autotuning (compiler/autotune.h) looks at the pattern itself.
constexpr double kPlannedDensity = 0.05;
StreamedRows planned_rows(std::int64_t length, int block);

struct TileCandidate {
    TileShape shape;
    std::string infeasible;                // why it cannot run, or empty
    std::optional<Prediction> prediction;  // of those that can
};

// Every combination of stationary rows (the block or a power of 2 below it), streamed rows and
// stages, in that order. `rates` as of rates_of(target), or a test's.
std::vector<TileCandidate> tile_candidates(const Attention& attention, int block,
                                           const StreamedRows& rows, KernelRole role,
                                           const Target& target, std::int64_t batch,
                                           const Rates& rates);
// The same for a pattern, with rates_of(target). Behind them come packed tiles
// (compiler/packing.h): of every number of block rows in packings(), or with
// `packed_rows` of that many alone, none with 1. Throws UserError for a `packed_rows` that the
// target's kernels cannot hold.
std::vector<TileCandidate> tile_candidates(const Attention& attention, const BlockPattern& pattern,
                                           KernelRole role, const Target& target,
                                           std::int64_t batch, std::optional<int> packed_rows = {});

// A shape that has been measured to be good on an H200 (and, on the host, on x86): stationary rows
// are the block, 64 at most; two stages of as many streamed rows as leave a thread's accumulators
// in registers, fewer of both where shared memory is short. nullopt when that does not fit.
std::optional<TileShape> measured_shape(const Attention& attention, int block, KernelRole role,
                                        const Target& target);

// The same among candidates of several kinds, but for packed ones: where warps with items of their
// own are predicted to be slower than the fastest by more than kMargin, as on few items, the shape
// of thread blocks.
constexpr double kMargin = 0.1;
std::optional<TileShape> measured_among(std::vector<TileCandidate> candidates,
                                        const Attention& attention, int block, KernelRole role,
                                        const Target& target);

// Indices of the `count` that rank best. The winner comes first: the measured shape, unless a rival
// is predicted to be faster by more than kMargin, what the model can tell apart; the others follow
// by their time.
std::vector<std::size_t> rank_candidates(const std::vector<TileCandidate>& candidates,
                                         const std::optional<TileShape>& measured,
                                         std::size_t count);

// The winner's shape. Throws UserError when none fits the target's shared memory, saying what
// would.
TileShape choose_tiles(const Attention& attention, int block, KernelRole role,
                       const Target& target);

// The packed candidate that is predicted fastest; nullptr when there is none that can run.
const TileCandidate* best_packed(const std::vector<TileCandidate>& candidates);

// Whether packed tiles are predicted to be faster than `plain`, which choose_tiles has chosen, by
// more than kMargin, and no slower than any tile that is not packed.
bool packing_pays(const std::vector<TileCandidate>& candidates, const TileShape& plain);

// For a pattern: choose_tiles' shape, unless packing pays on this pattern and batch. With
// `packed_rows` the best shape of so many block rows; 1: none are packed. Throws UserError when no
// such tile fits.
TileShape choose_tiles_for(const Attention& attention, const BlockPattern& pattern, KernelRole role,
                           const Target& target, std::optional<int> packed_rows = {},
                           std::int64_t batch = kPlannedBatch);

// Tile of the score summary: as large as the block, 64 and the target's shared memory allow. Throws
// UserError when not even 16 rows fit.
int choose_summary_tile(const Attention& attention, int block, const Target& target);

// For people: every candidate with the terms of its prediction for this pattern and batch, or why
// it cannot run, why the winner won, what autotuning might find, and why tiles are packed or not.
// Throws as choose_tiles_for does.
std::string explain(const Attention& attention, const BlockPattern& pattern, KernelRole role,
                    const Target& target, std::int64_t batch = kPlannedBatch,
                    std::optional<int> packed_rows = {});

}  // namespace spion
