#include "codegen/kernel_cost.h"

#include <algorithm>
#include <array>
#include <utility>

#include "ir/error.h"

namespace spion {

RoleWork work_of(KernelRole role) {
    switch (role) {
        case KernelRole::kForward:  // S, O | Q | O | K, V | LSE
            return {.products = 2,
                    .stationary_left = 1,
                    .loaded = 1,
                    .stored = 1,
                    .streamed = 2,
                    .statistics = 1};
        case KernelRole::kQueryGradient:  // S, dP, dQ | Q, dO, O | dQ | K, V | LSE, delta
            return {.products = 3,
                    .stationary_left = 2,
                    .loaded = 3,
                    .stored = 1,
                    .streamed = 2,
                    .statistics = 2};
        case KernelRole::kKeyValueGradient:  // S, dP, dV, dK | K, V | dK, dV | Q, dO | LSE, delta
            return {.products = 4,
                    .stationary_left = 2,
                    .loaded = 2,
                    .stored = 2,
                    .streamed = 2,
                    .statistics = 2};
        case KernelRole::kDelta:  // | dO, O | | | delta
            return {.products = 0,
                    .stationary_left = 0,
                    .loaded = 2,
                    .stored = 0,
                    .streamed = 0,
                    .statistics = 1};
        case KernelRole::kGradients:  // S, dP, dV, dK, dQ | K, V | dK, dV, dQ | Q, dO | LSE, delta
            return {.products = 5,
                    .stationary_left = 2,
                    .loaded = 2,
                    .stored = 3,
                    .streamed = 2,
                    .statistics = 2};
    }
    throw InternalError("kernel role {} has no work", static_cast<int>(role));
}

std::string_view to_string(Bound bound) {
    switch (bound) {
        case Bound::kMemory:
            return "memory";
        case Bound::kCache:
            return "L2";
        case Bound::kProducts:
            return "products";
        case Bound::kSharedMemory:
            return "shared memory";
        case Bound::kExponentials:
            return "exponentials";
        case Bound::kInstructions:
            return "instructions";
        case Bound::kLatency:
            return "latency";
    }
    throw InternalError("bound {} has no name", static_cast<int>(bound));
}

Bound largest(double products, double shared, double exponentials, double instructions) {
    const std::array<std::pair<double, Bound>, 4> parts = {{{products, Bound::kProducts},
                                                            {shared, Bound::kSharedMemory},
                                                            {exponentials, Bound::kExponentials},
                                                            {instructions, Bound::kInstructions}}};
    return std::max_element(parts.begin(), parts.end())->second;
}

}  // namespace spion
