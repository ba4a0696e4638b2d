// Which kernels compute a layer: the backward pass has two ways (ir/tile_program.h).
#pragma once

#include <array>
#include <optional>
#include <string>

#include "ir/head_patterns.h"
#include "ir/tile_program.h"

namespace spion {

using LayerRoles = std::array<KernelRole, 3>;  // by launch_of
constexpr LayerRoles kSplitBackwardRoles = {KernelRole::kForward, KernelRole::kQueryGradient,
                                            KernelRole::kKeyValueGradient};
// 5 matrix products for 7 of kSplitBackwardRoles and the exponentials once, for B H L D 4 bytes of
// device memory more.
constexpr LayerRoles kFusedBackwardRoles = {KernelRole::kForward, KernelRole::kDelta,
                                            KernelRole::kGradients};

enum class PatternDensity { kSparse, kFull };
PatternDensity density_of(const HeadPatterns& pattern);  // kFull: it has every block

// Both ways of a layer's backward pass, on the typical pattern (compiler/plan/typical.h), seconds.
struct BackwardPrediction {
    double split = 0;
    std::optional<double> fused = {};  // where the target has the kernels
    std::string why_not_fused = {};    // where it has not
    bool fused_on_full_alone = false;  // measured to be slower on sparse patterns
};

// The faster way; kSplitBackwardRoles for baked tables, which the others do not take.
LayerRoles choose_roles(const BackwardPrediction& predicted, PatternDensity density, Tables tables);

}  // namespace spion
