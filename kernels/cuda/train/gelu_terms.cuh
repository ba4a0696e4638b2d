// The terms of gelu(x) = x * P(x) and gelu'(x) = P(x) + x * p(x), with P and p the distribution and
// density of the standard normal.
#pragma once

#include "kernels/cuda/common/ptx.cuh"
#include "kernels/cuda/train/contract.cuh"

struct NormalTerms {
    float distribution;  // P(x)
    float bell;          // exp(-x^2 / 2) = sqrt(2 pi) * p(x)
};

// P(-|x|) as 2^q(|x|), q of degree 5 by a weighted fit of log2 P on [0, 5]: absolute error 1e-5, of gelu
// 8e-6, far below bf16 too. q falls beyond, so that P does.
__device__ __forceinline__ float normal_tail(float x) {
    const float magnitude = fabsf(x);
    float q = -3.67578351e-4F;
    q = q * magnitude + 6.35647918e-3F;
    q = q * magnitude - 5.02193971e-2F;
    q = q * magnitude - 0.461248801F;
    q = q * magnitude - 1.15055175F;
    return ex2_approx(q * magnitude - 1.00002095F);
}
// exp(-x^2 / 2).
__device__ __forceinline__ float normal_bell(float x) {
    constexpr float kRootHalfLog2E = 0.84932180028801904F;  // sqrt(log2(e) / 2)
    const float z = kRootHalfLog2E * x;
    return ex2_approx(-z * z);
}

// `magnitude`, which is not negative, with the sign of x.
__device__ __forceinline__ float with_sign(float magnitude, float x) {
    return __uint_as_float(__float_as_uint(magnitude) ^ (__float_as_uint(x) & 0x80000000U));
}

// gelu(x) = max(x, 0) - |x| P(-|x|).
__device__ __forceinline__ float gelu(float x) {
    return fmaxf(x, 0.0F) - fabsf(x) * normal_tail(x);
}

// P(-|x|) = erfc(|x| / sqrt 2) / 2 after Abramowitz and Stegun, 7.1.26 (absolute error 1e-7, far below
// bf16), in two special-function instructions.
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
