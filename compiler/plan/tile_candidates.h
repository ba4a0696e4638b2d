// Which tile shapes a launch could have, and which of them win. A pure function of operation,
// pattern, target and the table of kernel families, checked without a device.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "codegen/kernel_family.h"
#include "compiler/plan/cost_model.h"
#include "compiler/plan/walk_summary.h"

namespace spion {

struct TileCandidate {
    const KernelFamily* family = nullptr;
    TileShape shape = {};
    KernelPlan plan = {};                       // `problem`: why it cannot run
    std::optional<Prediction> prediction = {};  // of those that can
};

// Of every family that can compute the launch, every shape within a block row, in the families'
// order.
std::vector<TileCandidate> tile_candidates(const KernelCase& launch, const StreamedRows& rows,
                                           std::int64_t batch, KernelFamilies families);
// Packed tiles of `packed_rows` block rows (compiler/plan/packing.h). rows: of as many.
std::vector<TileCandidate> packed_candidates(const KernelCase& launch, const StreamedRows& rows,
                                             std::int64_t batch, KernelFamilies families);
// One shape, which the family has a kernel for.
TileCandidate candidate_of(const KernelCase& launch, const KernelFamily& family,
                           const TileShape& shape, const StreamedRows& rows, std::int64_t batch);

// Indices of the `count` that rank best. The winner comes first: the measured shape, unless a rival
// is predicted to be faster by more than kMargin, what the model can tell apart; the others follow
// by their time.
constexpr double kMargin = 0.1;
std::vector<std::size_t> rank_candidates(const std::vector<TileCandidate>& candidates,
                                         const std::optional<TileShape>& measured,
                                         std::size_t count);

// The shape of the first family that has measured one (KernelFamily::measured), among candidates
// whose packed tiles do not count; nullopt when none fits.
std::optional<TileShape> measured_among(std::vector<TileCandidate> candidates,
                                        const KernelCase& launch, KernelFamilies families);

// Throws UserError: no shape fits, or no family computes the launch at all. Says what would.
[[noreturn]] void throw_nothing_fits(const KernelCase& launch, KernelFamilies families);

}  // namespace spion
