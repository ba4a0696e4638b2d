#include "compiler/lower.h"

#include "ir/element_spans.h"
#include "ir/error.h"

namespace spion {
namespace {

void check_operands(const Attention& attention, const HeadPatterns& pattern) {
    check(attention);
    require_fit(pattern, attention);
}

}  // namespace

TileProgram seed_program(const Attention& attention, const HeadPatterns& pattern, KernelRole role) {
    return TileProgram{.role = role,
                       .attention = attention,
                       .block = pattern.block(),
                       .stationary_rows = 0,
                       .streamed_rows = 0,
                       .gather_rows = 0,
                       .warps = 0,
                       .stages = 0,
                       .order = {},
                       .offsets = {},
                       .gather_blocks = {}};
}

TileProgram lower(const Attention& attention, const HeadPatterns& pattern, KernelRole role,
                  const Target& target, const TileShape& shape, const LowerOptions& options) {
    check_operands(attention, pattern);
    const HeadPatterns visited = visited_blocks(pattern, attention);
    const HeadPatterns walked = walks_columns(role) ? visited.transpose() : visited;
    const PassContext context{.pattern = visited,
                              .walked = walked,
                              .target = target,
                              .shape = shape,
                              .tables = options.tables};
    return run_passes(pipeline(), seed_program(attention, pattern, role), context, options.observer,
                      options.verify_passes);
}

PlannedProgram lower_launch(const LayerPlan& plan, const LaunchPlan& launch,
                            const HeadPatterns& pattern, const PassObserver& observer) {
    PlannedProgram lowered{
        .program = lower(plan.attention, in_blocks_of(launch, pattern), launch.role, plan.target,
                         launch.shape, {.tables = plan.tables, .observer = observer}),
        .kernel = launch.kernel};
    // Passes may give a shape that was asked for smaller gather blocks, and it may be one that no
    // body has.
    if (launch.given) {
        lowered.kernel = plan_kernel(lowered.program, plan.target, plan.families);
    }
    return lowered;
}

LayerPrograms lower_layer(const LayerPlan& plan, const HeadPatterns& pattern) {
    LayerPrograms programs;
    for (std::size_t i = 0; i < programs.size(); ++i) {
        programs[i] = lower_launch(plan, plan.launches[i], pattern);
    }
    return programs;
}

}  // namespace spion
