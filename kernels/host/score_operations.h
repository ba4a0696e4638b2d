// The operations of a user's score expression (ir/score_expression.h), of 16 lanes each: the text of
// a kernel calls them, one after the other (codegen/llvm/score_llvm.cpp), so that they are defined
// here and not declared inline. What nobody calls is dropped before anything is compiled.
#pragma once

#include "kernels/host/vector.h"

// tanh, relative error about 4e-7.
SPION_INLINE Floats tanh_of(Floats x) {
    const Floats x2 = x * x;
    // x (1 - x^2 / 3 + 2 x^4 / 15 - ..) up to x^11, where 1 - 2 / (e^2x + 1) loses digits.
    Floats p = -1382.0F / 155925.0F * x2 + 62.0F / 2835.0F;
    p = p * x2 - 17.0F / 315.0F;
    p = p * x2 + 2.0F / 15.0F;
    p = p * x2 - 1.0F / 3.0F;
    p = p * x2 * x + x;
    const Floats two_x = x * (2.0F * kLog2E);
    const Floats bounded = two_x < 60.0F ? two_x : Floats(60.0F);
    const Floats e = 1.0F - 2.0F / (exp2_of(bounded) + 1.0F);
    return x2 < 0.09F ? p : e;
}

// e^x, infinity where fp32 has no number as large. The exponent is split into an integer, which is
// exact, and the rest, so that a large x loses nothing.
SPION_INLINE Floats exp_of(Floats x) {
    const float magic = 12582912.0F;  // 1.5 * 2^23
    const Floats nearest = (x * kLog2E + magic) - magic;
    const Floats n = nearest < 127.0F ? nearest : Floats(127.0F);
    const Floats rest = (x - n * 0.693145751953125F) - n * 1.428606820309417e-6F;  // ln 2, in parts
    const Floats scaled = exp2_of(n) * exp2_of(rest * kLog2E);
    const Floats of_positive = x > 88.7F ? Floats(__builtin_inff()) : scaled;
    return x < -87.0F ? Floats(0.0F) : of_positive;
}

// NaN below 0, -infinity for 0.
SPION_INLINE Floats natural_log_of(Floats x) {
    const Floats least = 1.17549435e-38F;  // below, numbers count as 0
    const Floats of_small = x < 0.0F ? Floats(__builtin_nanf("")) : Floats(-__builtin_inff());
    const Floats of_finite = x < least ? of_small : log_of(x);
    return x == __builtin_inff() ? x : of_finite;
}

#define SPION_SCORE_OPERATION extern "C" __attribute__((always_inline)) void

SPION_SCORE_OPERATION score_number(float number, float* result) {
    store(result, Floats(number));
}

#define SPION_SCORE_OPERATION_1(name, value)                          \
    SPION_SCORE_OPERATION name(const float* operand, float* result) { \
        const Floats a = load(operand);                               \
        store(result, value);                                         \
    }
SPION_SCORE_OPERATION_1(score_copy, a)
SPION_SCORE_OPERATION_1(score_negate, -a)
SPION_SCORE_OPERATION_1(score_abs, a < 0.0F ? -a : a)
SPION_SCORE_OPERATION_1(score_exp, exp_of(a))
SPION_SCORE_OPERATION_1(score_log, natural_log_of(a))
SPION_SCORE_OPERATION_1(score_sigmoid, 1.0F / (1.0F + exp_of(-a)))
SPION_SCORE_OPERATION_1(score_sqrt, __builtin_elementwise_sqrt(a))
SPION_SCORE_OPERATION_1(score_tanh, tanh_of(a))

#define SPION_SCORE_OPERATION_2(name, value)                                           \
    SPION_SCORE_OPERATION name(const float* left, const float* right, float* result) { \
        const Floats a = load(left), b = load(right);                                  \
        store(result, value);                                                          \
    }
SPION_SCORE_OPERATION_2(score_add, a + b)
SPION_SCORE_OPERATION_2(score_subtract, a - b)
SPION_SCORE_OPERATION_2(score_multiply, a* b)
SPION_SCORE_OPERATION_2(score_divide, a / b)
SPION_SCORE_OPERATION_2(score_max, a < b ? b : a)
SPION_SCORE_OPERATION_2(score_min, a < b ? a : b)
// Of comparisons, 1 where they hold.
SPION_SCORE_OPERATION_2(score_less, a < b ? Floats(1.0F) : Floats(0.0F))
SPION_SCORE_OPERATION_2(score_less_equal, a <= b ? Floats(1.0F) : Floats(0.0F))
SPION_SCORE_OPERATION_2(score_equal, a == b ? Floats(1.0F) : Floats(0.0F))

SPION_SCORE_OPERATION score_select(const float* condition, const float* left, const float* right,
                                   float* result) {
    store(result, load(condition) != 0.0F ? load(left) : load(right));
}

#undef SPION_SCORE_OPERATION_2
#undef SPION_SCORE_OPERATION_1
#undef SPION_SCORE_OPERATION
