#include "tools/role_results.h"

#include "ir/error.h"

namespace spion {

std::string_view results_of(KernelRole role) {
    switch (role) {
        case KernelRole::kForward:
            return "forward";
        case KernelRole::kQueryGradient:
            return "dQ";
        case KernelRole::kKeyValueGradient:
            return "dK and dV";
        case KernelRole::kDelta:
            return "delta";
        case KernelRole::kGradients:
            return "all gradients";
    }
    throw InternalError("kernel role {} has no results", static_cast<int>(role));
}

}  // namespace spion
