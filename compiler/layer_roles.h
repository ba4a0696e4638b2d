// Which kernels compute a layer: the backward pass has two ways (ir/tile_program.h).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "compiler/passes/pass.h"
#include "ir/attention.h"
#include "ir/target.h"
#include "ir/tile_program.h"

namespace spion {

using LayerRoles = std::array<KernelRole, 3>;  // by launch_of
constexpr LayerRoles kGradientsApart = {KernelRole::kForward, KernelRole::kQueryGradient,
                                        KernelRole::kKeyValueGradient};
// 5 matrix products for 7 of kGradientsApart and the exponentials once, for B H L D 4 bytes of
// device memory more.
constexpr LayerRoles kGradientsTogether = {KernelRole::kForward, KernelRole::kDelta,
                                           KernelRole::kGradients};

// Why `target` has no kernels for kGradientsTogether, as a clause; "" when it has. They take bf16
// or fp16 on sm_90a, D = 64 or 128, blocks of 128.
std::string why_not_together(const Attention& attention, int block, const Target& target);

// Their one tile; role is kDelta or kGradients, and why_not_together has no reason.
TileShape together_shape(const Attention& attention, KernelRole role);

// What the cost model predicts of both backward launches of a layer, in seconds.
struct BackwardPrediction {
    double apart = 0;
    std::optional<double> together = {};  // where the target has the kernels
};
BackwardPrediction predict_backward(const Attention& attention, int block, const Target& target);

// For people: which way was chosen and why, a line.
std::string explain_roles(const Attention& attention, int block, const Target& target);

// The faster ones, as predicted for every pattern of a length and block (tile_candidates.h).
// kGradientsApart for baked tables, which the others do not take.
LayerRoles choose_roles(const Attention& attention, int block, const Target& target,
                        Tables tables = Tables::kPassed);

}  // namespace spion
