#include "compiler/plan/layer_roles.h"

namespace spion {

LayerRoles choose_roles(const BackwardPrediction& predicted, Tables tables) {
    const bool fused = tables == Tables::kPassed && predicted.fused.has_value() &&
                       *predicted.fused < predicted.split;
    return fused ? kFusedBackwardRoles : kSplitBackwardRoles;
}

}  // namespace spion
