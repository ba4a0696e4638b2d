// BlockPattern -> TileProgram: runs the passes of compiler/passes/pipeline.cpp on the seed program.
// The tile shape is given: by a plan (compiler/plan/layer_plan.h) or by the caller.
#pragma once

#include "compiler/passes/pipeline.h"
#include "compiler/plan/layer_plan.h"
#include "compiler/planned_program.h"
#include "ir/attention.h"
#include "ir/block_pattern.h"
#include "ir/target.h"
#include "ir/tile_program.h"

namespace spion {

// What the passes start from: the operation and the block, no tiles, no walk.
TileProgram seed_program(const Attention& attention, const HeadPatterns& patterns, KernelRole role);

struct LowerOptions {
    Tables tables = Tables::kPassed;
    PassObserver observer = {};  // called after each pass
    VerifyPasses verify_passes = kVerifyPassesByDefault;
};

// A program with tiles of `shape`, which satisfies verify(program, pattern). Throws UserError when
// the pattern's length is not the attention's or when `attention` fails check().
TileProgram lower(const Attention& attention, const HeadPatterns& patterns, KernelRole role,
                  const Target& target, const TileShape& shape, const LowerOptions& options = {});

// One launch of a plan, which was made for the pattern or one of its length and block. Throws
// UserError where a shape that was asked for cannot run.
PlannedProgram lower_launch(const LayerPlan& plan, const LaunchPlan& launch,
                            const HeadPatterns& patterns, const PassObserver& observer = {});
LayerPrograms lower_layer(const LayerPlan& plan, const HeadPatterns& patterns);

}  // namespace spion
