// The plan of a layer: everything that is decided about its kernels, decided once. Lowering,
// emission, loading, the report, --explain, autotuning and the tiers read it; none decides again.
//
// A pure function of operation, pattern, target and the table of kernel families: no device.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "codegen/kernel_families.h"
#include "codegen/kernel_family.h"
#include "compiler/plan/layer_roles.h"
#include "compiler/plan/tile_candidates.h"
#include "compiler/plan/typical.h"
#include "ir/attention.h"
#include "ir/head_patterns.h"
#include "ir/target.h"
#include "ir/tile_program.h"

namespace spion {

struct PlanOptions {
    std::int64_t batch = kPlannedBatch;  // B that packing is weighed for
    // Block rows a tile (compiler/plan/packing.h); nothing: what the cost model says of the pattern.
    std::optional<int> packed_rows = {};
    Tables tables = Tables::kPassed;
    // How dQ is summed; nothing: what the cost model says, but split where `shapes` has one of a
    // backward launch.
    std::optional<LayerRoles> roles = {};
    // Sum dQ as is best for patterns that have this share of the blocks; nothing: for the pattern.
    std::optional<double> density = {};
    // The kernels walk this pattern alone, so that a full one may be cut into the blocks that suit
    // them best (KernelFamily::full_block). Not under a mask, whose empty blocks are left out.
    bool cut_full = false;
    // Which launches to plan; the others are left empty.
    std::array<bool, 3> launches = {true, true, true};
    // Of launch i; nothing: what the cost model says.
    std::array<std::optional<TileShape>, 3> shapes = {};
};

// A candidate that another was preferred to.
struct Rival {
    std::size_t candidate = 0;  // of LaunchPlan::candidates
    std::string lost = {};      // why, a clause: "it is predicted 12.0 % slower"
};

struct LaunchPlan {
    KernelRole role = KernelRole::kForward;
    int block = 0;  // the pattern's, or what a full one is cut into
    TileShape shape = {};
    PlannedKernel kernel = {};                  // family, registers, shared memory, launch geometry
    std::optional<Prediction> prediction = {};  // on the pattern, for `batch` samples

    // How that was decided; nothing of it where the shape was given.
    bool given = false;
    std::int64_t batch = kPlannedBatch;
    std::optional<int> asked_packed_rows = {};
    std::vector<TileCandidate> candidates = {};  // on the pattern; packed ones behind the others
    std::vector<Rival> rivals = {};              // fastest first, those that cannot run last
    std::optional<TileShape> measured = {};      // among the candidates
    TypicalTiles typical = {};
    bool packing_weighed = false;  // a family could save something by packing

    // The winner among tiles that are not packed.
    const TileShape& plain() const { return typical.winner().shape; }
};

struct LayerPlan {
    Attention attention = {};
    int block = 0;
    Target target = {};
    KernelFamilies families = {};
    Tables tables = Tables::kPassed;
    std::int64_t batch = kPlannedBatch;
    LayerRoles roles = kSplitBackwardRoles;
    BackwardPrediction backward = {};         // nothing predicted where the roles were given
    std::array<LaunchPlan, 3> launches = {};  // by launch_of
};

// Throws UserError when the pattern's length is not the attention's, when `attention` fails check(),
// when no tile fits the target's shared memory, or when so many packed rows do not.
LayerPlan plan_layer(const Attention& attention, const HeadPatterns& pattern, const Target& target,
                     const PlanOptions& options = {}, KernelFamilies families = kernel_families());

// One launch of it.
LaunchPlan plan_launch(const Attention& attention, const HeadPatterns& pattern, KernelRole role,
                       const Target& target, const PlanOptions& options = {},
                       KernelFamilies families = kernel_families());

// The pattern in the blocks of a launch.
HeadPatterns in_blocks_of(const LaunchPlan& launch, const HeadPatterns& pattern);

// "12.0 % faster": of a tile, when another takes `ratio` times as long.
std::string faster_or_slower(double ratio);

// Gives a launch the shape of one of its candidates. Throws InternalError for any other.
void take_shape(LaunchPlan& launch, const TileShape& shape);

// For people: every candidate with the terms of its prediction, or why it cannot run, why the winner
// won, what autotuning might find, and why tiles are packed or not.
std::string explain(const LayerPlan& plan, const LaunchPlan& launch, const HeadPatterns& pattern);
// Which way the gradients are computed and why, a line.
std::string explain_roles(const LayerPlan& plan);

}  // namespace spion
