// What a plan says of one launch, asked as tests ask: of an operation on a block, or on a pattern.
#pragma once

#include "codegen/kernel_families.h"
#include "compiler/plan/layer_plan.h"
#include "compiler/plan/packing.h"
#include "compiler/plan/tile_candidates.h"
#include "compiler/plan/typical.h"

namespace spion::test {

// An operation's launch with all that a KernelCase refers to.
struct Launch {
    Attention attention;
    KernelRole role;
    int block;
    Target target;
    Rates rates = rates_of(target);

    KernelCase asked() const {
        return {
            .attention = attention, .role = role, .block = block, .target = target, .rates = rates};
    }
    TypicalTiles typical() const { return rank_typical(asked(), kernel_families()); }
    TileShape choose() const { return typical().winner().shape; }
    // Of the first family that has one.
    std::optional<TileShape> measured() const {
        const auto candidates = tile_candidates(asked(), planned_rows(attention.length, block),
                                                kPlannedBatch, kernel_families());
        return measured_among(candidates, asked(), kernel_families());
    }
    KernelPlan plan_of(const TileShape& shape) const {
        return family_of(role, shape.unit, attention.dtype, target, kernel_families())
            ->plan(asked(), shape);
    }
};

inline std::vector<TileCandidate> candidates_of(const Attention& attention,
                                                const HeadPatterns& pattern, KernelRole role,
                                                const Target& target, std::int64_t batch,
                                                std::optional<int> packed_rows = {}) {
    return plan_launch(attention, pattern, role, target,
                       {.batch = batch, .packed_rows = packed_rows})
        .candidates;
}

inline TileShape choose_for(const Attention& attention, const HeadPatterns& pattern,
                            KernelRole role, const Target& target,
                            std::optional<int> packed_rows = {},
                            std::int64_t batch = kPlannedBatch) {
    return plan_launch(attention, pattern, role, target,
                       {.batch = batch, .packed_rows = packed_rows})
        .shape;
}

inline std::string explain_launch(const Attention& attention, const HeadPatterns& pattern,
                                  KernelRole role, const Target& target,
                                  std::int64_t batch = kPlannedBatch,
                                  std::optional<int> packed_rows = {}) {
    PlanOptions options{.batch = batch, .packed_rows = packed_rows};
    options.launches = {};
    options.launches[launch_of(role)] = true;
    const LayerPlan plan = plan_layer(attention, pattern, target, options);
    return explain(plan, plan.launches[launch_of(role)], pattern);
}

}  // namespace spion::test
