#include <fmt/format.h>

#include "compiler/tune/tiers.h"

namespace spion {

std::string TierVerdict::text() const {
    if (!why_not.empty()) {
        return fmt::format("layer {}: tier 1 is not worth trying: {}", layer, why_not);
    }
    return fmt::format(
        "layer {}: tier 1 {}: {:.4f} ms a pass, tier 0 {:.4f} ms (compiled in {:.0f} ms in the "
        "background, measured in {:.0f} ms)",
        layer, taken ? "taken" : "dropped, it is not faster", tier1_ms, tier0_ms, compile_ms,
        measurement_ms);
}

}  // namespace spion
