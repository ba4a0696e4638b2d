#include "compiler/plan/layer_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "compiler/plan/packing.h"
#include "ir/element_spans.h"
#include "ir/error.h"

namespace spion {
namespace {

constexpr std::size_t kRoles = 5;

// What is planned, and the typical tiles of its roles: of each when first asked for, and then kept.
class Planner {
  public:
    Planner(const Attention& attention, const HeadPatterns& pattern, const Target& target,
            const PlanOptions& options, KernelFamilies families)
        : attention_(attention),
          pattern_(visited_blocks(pattern, attention)),
          target_(target),
          options_(options),
          families_(families),
          rates_(rates_of(target)) {
        check(attention);
        require_fit(pattern, attention);
    }

    KernelCase launch(KernelRole role) const { return in_blocks_of(block_of(role), role); }

    const TypicalTiles& typical(KernelRole role) {
        std::optional<TypicalTiles>& kept = typical_[static_cast<std::size_t>(role)];
        if (!kept) {
            kept = rank_typical(launch(role), families_);
        }
        return *kept;
    }

    BackwardPrediction predict_backward();
    LaunchPlan plan(KernelRole role);

  private:
    KernelCase in_blocks_of(int block, KernelRole role) const {
        return {.attention = attention_,
                .role = role,
                .block = block,
                .target = target_,
                .rates = rates_};
    }
    int block_of(KernelRole role) const;
    HeadPatterns walked(KernelRole role) const {
        const int block = block_of(role);
        return block == pattern_.block() ? pattern_ : pattern_.in_blocks_of(block);
    }
    double backward_seconds(KernelRole role);
    const TileCandidate& choose(LaunchPlan& plan) const;

    const Attention& attention_;
    const HeadPatterns pattern_;  // less the blocks that the mask empties
    const Target& target_;
    const PlanOptions& options_;
    KernelFamilies families_;
    Rates rates_;
    std::array<std::optional<TypicalTiles>, kRoles> typical_;
};

// What the first family that computes the role in such blocks cuts a full pattern into.
int Planner::block_of(KernelRole role) const {
    const auto& given = options_.shapes[launch_of(role)];
    const bool fits =
        given && (given->packed_rows > 1 || given->stationary_rows <= pattern_.block());
    const bool kept = !options_.cut_full || options_.packed_rows.value_or(1) > 1 || fits ||
                      attention_.mask != ElementMask::kNone || !pattern_.are_full();
    for (const KernelFamily* family : families_for(role, families_)) {
        if (kept || family->full_block == nullptr) {
            continue;
        }
        const int block = family->full_block(in_blocks_of(pattern_.block(), role));
        if (family->why_not(in_blocks_of(block, role)).empty()) {
            return block;
        }
    }
    return pattern_.block();
}

// Of the tile that wins on the typical pattern, on a pattern of the density that was asked for, or on
// the one at hand: which way is faster depends on it, and no kernel is shared by both.
double Planner::backward_seconds(KernelRole role) {
    const TileCandidate& winner = typical(role).winner();
    const StreamedRows rows =
        options_.density ? planned_rows(stationary_length(attention_, role), block_of(role),
                                        streamed_length(attention_, role), *options_.density)
                         : streamed_rows(walked(role), role);
    return candidate_of(launch(role), *winner.family, winner.shape, rows, options_.batch)
        .prediction->seconds;
}

BackwardPrediction Planner::predict_backward() {
    BackwardPrediction predicted{.batch = options_.batch,
                                 .density = options_.density.value_or(pattern_.density())};
    for (const KernelFamily* family : families_for(KernelRole::kGradients, families_)) {
        predicted.why_not_fused = family->why_not(launch(KernelRole::kGradients));
        if (predicted.why_not_fused.empty()) {
            predicted.fused =
                backward_seconds(KernelRole::kDelta) + backward_seconds(KernelRole::kGradients);
            predicted.split = backward_seconds(KernelRole::kQueryGradient) +
                              backward_seconds(KernelRole::kKeyValueGradient);
            break;
        }
    }
    return predicted;
}

// Weighs packed tiles on the pattern against the typical winner.
const TileCandidate& Planner::choose(LaunchPlan& plan) const {
    const std::optional<int> asked = options_.packed_rows;
    const TileShape& plain = plan.plain();
    const TileCandidate* const packed = best_packed(plan.candidates);
    if (asked && *asked != 1 && packed == nullptr) {
        throw UserError(
            "{} block rows of {} in a tile of {} for D={} {} do not fit {} ({}): pack fewer rows",
            *asked, pattern_.block(), to_string(plan.role), attention_.head_dim,
            to_string(attention_.dtype), target_.arch, plan.candidates.back().plan.problem);
    }
    const bool pack = asked ? *asked != 1 : packing_pays(plan.candidates, plain);
    return pack ? *packed
                : *std::find_if(
                      plan.candidates.begin(), plan.candidates.end(),
                      [&](const TileCandidate& candidate) { return candidate.shape == plain; });
}

// Everyone but the winner, with what it lost by.
std::vector<Rival> rivals_of(const LaunchPlan& plan) {
    std::vector<Rival> rivals;
    for (const std::size_t at :
         rank_candidates(plan.candidates, std::nullopt, plan.candidates.size())) {
        const TileCandidate& rival = plan.candidates[at];
        if (rival.shape == plan.shape) {
            continue;
        }
        const double ratio = plan.prediction->seconds / rival.prediction->seconds;
        rivals.push_back(
            {.candidate = at,
             .lost = fmt::format(
                 "it is predicted {}{}", faster_or_slower(ratio),
                 ratio > 1 ? " on this pattern, which shares its kernels with others" : "")});
    }
    for (std::size_t at = 0; at < plan.candidates.size(); ++at) {
        if (!plan.candidates[at].prediction) {
            rivals.push_back(
                {.candidate = at, .lost = "it cannot run: " + plan.candidates[at].plan.problem});
        }
    }
    return rivals;
}

LaunchPlan Planner::plan(KernelRole role) {
    LaunchPlan plan;
    plan.role = role;
    plan.block = block_of(role);
    plan.batch = options_.batch;
    if (const auto& given = options_.shapes[launch_of(role)]) {
        plan.shape = *given;
        plan.given = true;
        return plan;
    }
    const KernelCase asked = launch(role);
    const HeadPatterns pattern = walked(role);
    plan.asked_packed_rows = options_.packed_rows;
    plan.typical = typical(role);
    std::vector<int> packed = packings(asked, families_);
    plan.packing_weighed = !packed.empty();
    if (options_.packed_rows) {
        packed.clear();
        if (*options_.packed_rows != 1) {
            require_packable(asked, *options_.packed_rows, families_);
            packed.push_back(*options_.packed_rows);
        }
    }
    plan.candidates =
        tile_candidates(asked, streamed_rows(pattern, role), options_.batch, families_);
    plan.measured = measured_among(plan.candidates, asked, families_);
    for (const int rows : packed) {
        for (TileCandidate& candidate : packed_candidates(asked, streamed_rows(pattern, role, rows),
                                                          options_.batch, families_)) {
            plan.candidates.push_back(std::move(candidate));
        }
    }
    take_shape(plan, choose(plan).shape);
    return plan;
}

}  // namespace

HeadPatterns in_blocks_of(const LaunchPlan& launch, const HeadPatterns& pattern) {
    return launch.block == pattern.block() ? pattern : pattern.in_blocks_of(launch.block);
}

void take_shape(LaunchPlan& launch, const TileShape& shape) {
    const auto found =
        std::find_if(launch.candidates.begin(), launch.candidates.end(),
                     [&](const TileCandidate& candidate) { return candidate.shape == shape; });
    if (found == launch.candidates.end() || !found->prediction) {
        throw InternalError("a tile of {} rows for {} is no candidate that can run",
                            shape.stationary_rows, to_string(launch.role));
    }
    launch.shape = shape;
    launch.kernel = {.family = found->family, .plan = found->plan};
    launch.prediction = found->prediction;
    launch.rivals = rivals_of(launch);
}

namespace {

// No launch has more sequences with patterns of their own than the attention has room for.
PlanOptions within_room(const Attention& attention, PlanOptions options) {
    if (attention.sequence_patterns > 0) {
        options.batch = std::min<std::int64_t>(options.batch, attention.sequence_patterns);
    }
    return options;
}

}  // namespace

LayerPlan plan_layer(const Attention& attention, const HeadPatterns& pattern, const Target& target,
                     const PlanOptions& given, KernelFamilies families) {
    const PlanOptions options = within_room(attention, given);
    Planner planner(attention, pattern, target, options, families);
    LayerPlan plan{.attention = attention,
                   .block = pattern.block(),
                   .target = target,
                   .families = families,
                   .tables = options.tables,
                   .batch = options.batch};
    if (options.roles) {
        plan.roles = *options.roles;
    } else if (!options.shapes[1] && !options.shapes[2]) {
        plan.backward = planner.predict_backward();
        plan.roles = choose_roles(plan.backward, options.tables);
    }
    for (const KernelRole role : plan.roles) {
        if (options.launches[launch_of(role)]) {
            plan.launches[launch_of(role)] = planner.plan(role);
        }
    }
    return plan;
}

LaunchPlan plan_launch(const Attention& attention, const HeadPatterns& pattern, KernelRole role,
                       const Target& target, const PlanOptions& options, KernelFamilies families) {
    return Planner(attention, pattern, target, within_room(attention, options), families)
        .plan(role);
}

}  // namespace spion
