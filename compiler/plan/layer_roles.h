// Which kernels compute a layer: the backward pass has two ways (ir/tile_program.h).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "ir/tile_program.h"

namespace spion {

using LayerRoles = std::array<KernelRole, 3>;  // by launch_of
constexpr LayerRoles kSplitBackwardRoles = {KernelRole::kForward, KernelRole::kQueryGradient,
                                            KernelRole::kKeyValueGradient};
// 5 matrix products for 7 of kSplitBackwardRoles and the exponentials once, for B H L D 4 bytes of
// device memory more.
constexpr LayerRoles kFusedBackwardRoles = {KernelRole::kForward, KernelRole::kDelta,
                                            KernelRole::kGradients};

// Both ways of a layer's backward pass, seconds, for `batch` samples of a pattern that has `density`
// of the blocks.
struct BackwardPrediction {
    double split = 0;
    std::optional<double> fused = {};  // where the target has the kernels
    std::string why_not_fused = {};    // where it has not
    std::int64_t batch = 0;
    double density = 0;
};

// The faster way; kSplitBackwardRoles for baked tables, which the others do not take.
LayerRoles choose_roles(const BackwardPrediction& predicted, Tables tables);

}  // namespace spion
