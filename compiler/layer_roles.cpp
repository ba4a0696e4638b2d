#include "compiler/layer_roles.h"

#include <fmt/format.h>

#include "codegen/emit.h"
#include "compiler/tile_candidates.h"
#include "ir/error.h"

namespace spion {
namespace {

// The stationary rows of two warpgroups, which exchange what dQ needs.
constexpr int kTogetherBlock = 128;
// Measured on an H200: 0 to 15 % slower together on sparse patterns, 10 % faster on full ones.
constexpr int kOnlyFullHeadDim = 128;

double predicted_seconds(const Attention& attention, int block, KernelRole role,
                         const TileShape& shape, const Target& target) {
    const Rates rates = rates_of(target);
    const StreamedRows rows = planned_rows(attention.length, block);
    const Residency resident = residency(attention, role, shape, target, rates);
    return predict(attention, role, shape, summarise(rows, shape, resident.columns), kPlannedBatch,
                   target, rates)
        .seconds;
}

}  // namespace

std::string why_not_together(const Attention& attention, int block, const Target& target) {
    if (!has_wgmma(target)) {
        return fmt::format("{} has no kernels that sum all gradients together", target.arch);
    }
    const bool fits = storage_bytes(attention.dtype) == 2 && block == kTogetherBlock &&
                      (attention.head_dim == 64 || attention.head_dim == 128);
    if (!fits) {
        return fmt::format(
            "kernels that sum all gradients together take bf16 or fp16, D=64 or 128 and blocks of "
            "{}, not {}, D={} and blocks of {}",
            kTogetherBlock, to_string(attention.dtype), attention.head_dim, block);
    }
    return "";
}

TileShape together_shape(const Attention& attention, KernelRole role) {
    if (role == KernelRole::kDelta) {
        return {.stationary_rows = 64, .streamed_rows = 64, .granule = 64, .warps = 4, .stages = 1};
    }
    if (role != KernelRole::kGradients) {
        throw InternalError("{} is not of the kernels that sum gradients together",
                            to_string(role));
    }
    const int streamed = attention.head_dim == 128 ? 64 : 128;
    return {.stationary_rows = kTogetherBlock,
            .streamed_rows = streamed,
            .granule = streamed,
            .warps = kTogetherBlock / 16,
            .stages = 2,
            .wgmma = true};
}

BackwardPrediction predict_backward(const Attention& attention, int block, const Target& target) {
    BackwardPrediction predicted;
    for (const KernelRole role : {KernelRole::kQueryGradient, KernelRole::kKeyValueGradient}) {
        predicted.apart += predicted_seconds(attention, block, role,
                                             choose_tiles(attention, block, role, target), target);
    }
    if (why_not_together(attention, block, target).empty()) {
        predicted.together = 0;
        for (const KernelRole role : {KernelRole::kDelta, KernelRole::kGradients}) {
            *predicted.together +=
                predicted_seconds(attention, block, role, together_shape(attention, role), target);
        }
    }
    return predicted;
}

Extent extent_of(const BlockPattern& pattern) {
    const std::int64_t all = std::int64_t{pattern.rows()} * pattern.rows();
    return pattern.block_count() == all ? Extent::kFull : Extent::kSparse;
}

std::string explain_roles(const Attention& attention, const BlockPattern& pattern,
                          const Target& target) {
    const int block = pattern.block();
    if (const std::string reason = why_not_together(attention, block, target); !reason.empty()) {
        return fmt::format("backward: dQ, then dK and dV; {}\n", reason);
    }
    const BackwardPrediction predicted = predict_backward(attention, block, target);
    const bool together =
        choose_roles(attention, block, extent_of(pattern), target) == kGradientsTogether;
    return fmt::format(
        "backward: {}; delta and then all gradients are predicted to take {:.1f} us, dQ and then "
        "dK and dV {:.1f} us (B={}, {:.0f} % of the blocks){}\n",
        together ? "delta, then all gradients" : "dQ, then dK and dV", *predicted.together * 1e6,
        predicted.apart * 1e6, kPlannedBatch, 100 * kPlannedDensity,
        attention.head_dim == kOnlyFullHeadDim ? "; at D=128 together on full patterns only" : "");
}

LayerRoles choose_roles(const Attention& attention, int block, Extent extent, const Target& target,
                        Tables tables) {
    const bool measured_slower =
        attention.head_dim == kOnlyFullHeadDim && extent == Extent::kSparse;
    if (tables == Tables::kBaked || measured_slower ||
        !why_not_together(attention, block, target).empty()) {
        return kGradientsApart;
    }
    const BackwardPrediction predicted = predict_backward(attention, block, target);
    return *predicted.together < predicted.apart ? kGradientsTogether : kGradientsApart;
}

}  // namespace spion
