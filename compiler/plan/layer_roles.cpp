#include "compiler/plan/layer_roles.h"

namespace spion {

PatternDensity density_of(const HeadPatterns& pattern) {
    const std::int64_t all = std::int64_t{pattern.count()} * pattern.rows() * pattern.columns();
    return pattern.block_count() == all ? PatternDensity::kFull : PatternDensity::kSparse;
}

LayerRoles choose_roles(const BackwardPrediction& predicted, PatternDensity density,
                        Tables tables) {
    const bool measured_slower =
        predicted.fused_on_full_alone && density == PatternDensity::kSparse;
    if (tables == Tables::kBaked || measured_slower || !predicted.fused) {
        return kSplitBackwardRoles;
    }
    // Turns are not in the model.
    return *predicted.fused < predicted.split ? kFusedBackwardRoles : kSplitBackwardRoles;
}

}  // namespace spion
