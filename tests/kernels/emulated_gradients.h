// The fused backward of sm_90a as the emulated test runs it.
#pragma once

#include <string_view>
#include <vector>

#include "ir/target.h"
#include "kernels/sm90_arguments.h"
#include "tests/kernels/emulated_case.h"

namespace spion {

// Both widths of tiles and widths that are padded to them, both element types, both softmax kinds,
// padded keys (one sample without any), the causal mask, ragged L, more keys than queries.
inline std::vector<EmulatedCase> emulated_gradients() {
    constexpr auto kZero = SoftmaxKind::kPrunedZero;
    constexpr auto kMasked = SoftmaxKind::kMasked;
    constexpr auto kNone = ElementMask::kNone;
    constexpr auto kCausal = ElementMask::kCausal;
    return {
        {"gradients_bf16_d64", DType::kBf16, 2, 64, 600, 128, 128, 128, 128, 2, kZero, false},
        {"gradients_bf16_d128", DType::kBf16, 2, 128, 500, 128, 128, 64, 64, 2, kMasked, false},
        {"gradients_fp16_d128", DType::kFp16, 1, 128, 300, 128, 128, 64, 64, 2, kZero, true},
        {"gradients_causal", DType::kBf16, 1, 64, 520, 128, 128, 128, 128, 2, kMasked, true,
         kCausal},
        with_values(128, {"gradients_widths", DType::kFp16, 1, 72, 260, 128, 128, 64, 64, 2,
                          kMasked, false, kNone, 0, 390}),
    };
}

inline Target emulated_hopper_target() {
    return cuda_target(90);
}

using EmulatedGradients = void (*)(const SpionSm90Arguments&);

// `name`: a case's. Throws InternalError if unknown.
EmulatedGradients find_emulated_gradients(std::string_view name);

}  // namespace spion
