#include "compiler/plan/layer_roles.h"

namespace spion {

Extent extent_of(const BlockPattern& pattern) {
    const std::int64_t all = std::int64_t{pattern.rows()} * pattern.rows();
    return pattern.block_count() == all ? Extent::kFull : Extent::kSparse;
}

LayerRoles choose_roles(const BackwardPrediction& predicted, Extent extent, Tables tables) {
    const bool measured_slower = predicted.together_on_full_alone && extent == Extent::kSparse;
    if (tables == Tables::kBaked || measured_slower || !predicted.together) {
        return kGradientsApart;
    }
    // Turns are not in the model.
    return *predicted.together < predicted.apart ? kGradientsTogether : kGradientsApart;
}

}  // namespace spion
