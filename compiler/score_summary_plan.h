// The kernel of discovery, ready to be launched by anybody: keeps no state, as attention_plan.h.
#pragma once

#include <cstdint>

#include "compiler/discovery/discover.h"
#include "compiler/launch/jit_kernel.h"
#include "ir/attention.h"
#include "ir/score_summary_program.h"

namespace spion {

struct ScoreSummaryPlan {
    ScoreSummaryProgram program;
    JitKernel jit;
    LaunchGeometry geometry;
    std::int64_t sums = 0;  // float32 numbers: [tiles, tiles, 7]
};

// Compiles (or finds) and loads. Throws UserError when the tiles do not fit the target.
ScoreSummaryPlan make_score_summary_plan(const Attention& attention,
                                         const DiscoverySettings& discovery, Device& device,
                                         KernelCache& cache);

}  // namespace spion
