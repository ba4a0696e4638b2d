// The standard normal's distribution P(x) and bell curve exp(-x^2 / 2), for gelu(x) = x * P(x) and
// gelu'(x) = P(x) + x * bell(x) / sqrt(2 pi).
#pragma once

#include "kernels/host/vector.h"

struct NormalTerms {
    Floats distribution;
    Floats bell;
};

// P(-a) = exp(-a^2 / 2) * t * q(t) with t = 1 / (1 + 0.265 a): a minimax fit of degree 8 on
// [0, 14] with relative error 1.2e-8, so 1e-7 in fp32 near 0 and 4e-7 of P where P is tiny.
SPION_INLINE NormalTerms normal_terms(Floats x) {
    const Floats bell = exp2_of(x * x * (-0.5F * kLog2E));
    const Floats a = larger(x, -x);
    const Floats t = 1.0F / (0.265F * a + 1.0F);
    Floats q = 0.0308207767147F * t - 0.144228253043F;
    q = q * t + 0.217814231365F;
    q = q * t - 0.1163618315F;
    q = q * t + 0.137952606356F;
    q = q * t + 0.0603133016513F;
    q = q * t + 0.102700937228F;
    q = q * t + 0.105246669942F;
    q = q * t + 0.1057415635F;
    const Floats tail = q * t * bell;
    return {x < 0.0F ? tail : 1.0F - tail, bell};
}
