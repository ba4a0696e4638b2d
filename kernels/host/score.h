// What happens to a score, for all host bodies. Scores come as q . k times kScale * log2(e), so
// that exponents are base 2.
#pragma once

#include "kernels/host/vector.h"

extern "C" {
extern const float kScale;  // of Q K^T
}

// What one operand of S is multiplied with, so that scores are exponents.
SPION_INLINE float score_factor() {
    return kScale * kLog2E;
}

// 2^(score - shift): with shift = LSE log2(e) the probability, in the forward pass the same up to
// 1 / Z with shift = the row max.
SPION_INLINE Floats probability(Floats score, Floats shift) {
    return exp2_of(score - shift);
}

// dS / scale from P, dP and delta.
SPION_INLINE Floats score_gradient(Floats probability, Floats gradient, Floats delta) {
    return probability * (gradient - delta);
}
