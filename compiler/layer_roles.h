// Which kernels compute a layer: the backward pass has two ways (ir/tile_program.h).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "compiler/passes/pass.h"
#include "ir/attention.h"
#include "ir/block_pattern.h"
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

// Whether a role of kGradientsTogether's backward pass, which has one tile: nothing to tune.
constexpr bool has_one_tile(KernelRole role) {
    return role == KernelRole::kDelta || role == KernelRole::kGradients;
}

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
std::string explain_roles(const Attention& attention, const BlockPattern& pattern,
                          const Target& target);

enum class Extent { kSparse, kFull };
Extent extent_of(const BlockPattern& pattern);  // kFull: it has every block

// The faster ones, as predicted for every pattern of a length and block (tile_candidates.h); at
// D = 128 together on full patterns only, as sparse ones were measured to be no faster so (turns
// are not in the model). kGradientsApart for baked tables, which the others do not take.
LayerRoles choose_roles(const Attention& attention, int block, Extent extent, const Target& target,
                        Tables tables = Tables::kPassed);

}  // namespace spion
