// The terms of gelu(x) = x * P(x) and gelu'(x) = P(x) + x * p(x), with P and p the distribution and
// density of the standard normal. P(-|x|) = erfc(|x| / sqrt 2) / 2 after Abramowitz and
// Stegun, 7.1.26 (absolute error 1e-7, far below bf16), in two special-function instructions.
#pragma once

#include "kernels/cuda/common/ptx.cuh"
#include "kernels/cuda/train/contract.cuh"

struct NormalTerms {
    float distribution;  // P(x)
    float bell;          // exp(-x^2 / 2) = sqrt(2 pi) * p(x)
};

__device__ __forceinline__ NormalTerms normal_terms(float x) {
    constexpr float kHalfLog2E = 0.72134752044448170F;  // log2(e) / 2
    constexpr float kSlope = 0.3275911F * 0.70710678118654752F;
    const float bell = ex2_approx(-kHalfLog2E * (x * x));
    const float t = rcp_approx(1.0F + kSlope * fabsf(x));
    float tail = 0.5F * 1.061405429F;
    tail = tail * t - 0.5F * 1.453152027F;
    tail = tail * t + 0.5F * 1.421413741F;
    tail = tail * t - 0.5F * 0.284496736F;
    tail = tail * t + 0.5F * 0.254829592F;
    tail *= t * bell;
    return {x < 0.0F ? tail : 1.0F - tail, bell};
}
