// The tile shapes that a kernel could have, what each would cost, and which one wins.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "compiler/cost_model.h"

namespace spion {

// B is a run-time argument: programs are planned for this many samples.
constexpr std::int64_t kPlannedBatch = 32;

struct TileCandidate {
    TileShape shape;
    std::string infeasible;                // why it cannot run, or empty
    std::optional<Prediction> prediction;  // of those that can
};

// Every combination of stationary rows (the block or a power of 2 below it), streamed rows and
// stages, in that order. `rates` as of rates_of(target), or a test's.
std::vector<TileCandidate> tile_candidates(const Attention& attention, const BlockPattern& pattern,
                                           KernelRole role, const Target& target,
                                           std::int64_t batch, const Rates& rates);

// A shape that has been measured to be good on an H200 (and, on the host, on x86): stationary rows
// are the block, 64 at most; two stages of as many streamed rows as leave a thread's accumulators
// in registers, fewer of both where shared memory is short. nullopt when that does not fit.
std::optional<TileShape> measured_shape(const Attention& attention, int block, KernelRole role,
                                        const Target& target);

// Indices of the `count` that rank best. The winner comes first: the measured shape, unless a rival
// is predicted to be faster by more than kMargin, what the model can tell apart; the others follow
// by their time.
constexpr double kMargin = 0.1;
std::vector<std::size_t> rank_candidates(const std::vector<TileCandidate>& candidates,
                                         const std::optional<TileShape>& measured,
                                         std::size_t count);

// The winner's shape. Throws UserError when none fits the target's shared memory, saying what
// would.
TileShape choose_tiles(const Attention& attention, const BlockPattern& pattern, KernelRole role,
                       const Target& target, std::int64_t batch = kPlannedBatch);

// For people: every candidate with the terms of its prediction or why it cannot run, and why the
// winner won. Throws as choose_tiles does.
std::string explain(const Attention& attention, const BlockPattern& pattern, KernelRole role,
                    const Target& target, std::int64_t batch = kPlannedBatch);

}  // namespace spion
