#include "compiler/score_summary_plan.h"

#include "codegen/emit.h"
#include "compiler/discovery/score_summary.h"
#include "compiler/plan/summary_tile.h"

namespace spion {

ScoreSummaryPlan make_score_summary_plan(const Attention& attention,
                                         const DiscoverySettings& discovery, Device& device,
                                         KernelCache& cache) {
    ScoreSummaryPlan plan;
    plan.program = {.attention = attention,
                    .block = discovery.block,
                    .filter = effective_filter(discovery),
                    .tile = choose_summary_tile(attention, discovery.block, device.target())};
    plan.jit = compile_kernel(emit(plan.program, device.target()), device, cache);
    const std::int64_t tiles = (attention.length + plan.program.tile - 1) / plan.program.tile;
    const EmittedGeometry emitted = geometry(plan.program, device.target());
    plan.geometry = {.work_items = tiles * tiles,
                     .threads = emitted.threads,
                     .shared_bytes = emitted.shared_bytes};
    plan.sums = tiles * tiles * static_cast<std::int64_t>(kNeighbours.size());
    device.prepare(*plan.jit.kernel, plan.geometry);
    return plan;
}

}  // namespace spion
