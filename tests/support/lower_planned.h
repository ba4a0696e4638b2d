// One planned program, for tests that want a program and not its plan.
#pragma once

#include <optional>

#include "compiler/lower.h"
#include "compiler/plan/layer_plan.h"

namespace spion {

struct LaunchOptions {
    std::optional<TileShape> shape = {};  // nothing: what the plan chooses
    std::optional<int> packed_rows = {};
    Tables tables = Tables::kPassed;
    PassObserver observer = {};
    VerifyPasses verify_passes = kVerifyPassesByDefault;
};

inline TileProgram lower(const Attention& attention, const HeadPatterns& pattern, KernelRole role,
                         const Target& target, const LaunchOptions& options = {}) {
    const TileShape shape =
        options.shape ? *options.shape
                      : plan_launch(attention, pattern, role, target,
                                    {.packed_rows = options.packed_rows, .tables = options.tables})
                            .shape;
    return lower(attention, pattern, role, target, shape,
                 {.tables = options.tables,
                  .observer = options.observer,
                  .verify_passes = options.verify_passes});
}

}  // namespace spion
