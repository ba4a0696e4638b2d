// Vectors of 16 fp32 lanes for the host bodies, and the functions of them that LLVM has no
// instruction for. 16 lanes are one AVX-512 register, two AVX2 ones, four of SSE or Neon.
#pragma once

#define SPION_INLINE static inline __attribute__((always_inline))
// Larger pieces are compiled once a kernel and called.
#define SPION_FUNCTION static __attribute__((noinline, unused))
#define SPION_INLINE_MEMBER inline __attribute__((always_inline))

constexpr int kLanes = 16;
typedef float Floats __attribute__((ext_vector_type(16)));
typedef int Ints __attribute__((ext_vector_type(16)));
// The same lanes in memory, where rows need not start at a vector's boundary.
typedef float MemoryFloats __attribute__((ext_vector_type(16), aligned(4), may_alias));

SPION_INLINE Floats load(const float* data) {
    return *reinterpret_cast<const MemoryFloats*>(data);
}
typedef int MemoryInts __attribute__((ext_vector_type(16), aligned(4), may_alias));
SPION_INLINE Ints load(const int* data) {
    return *reinterpret_cast<const MemoryInts*>(data);
}
SPION_INLINE void store(float* data, Floats lanes) {
    *reinterpret_cast<MemoryFloats*>(data) = lanes;
}

SPION_INLINE Floats larger(Floats a, Floats b) {
    return a > b ? a : b;
}
SPION_INLINE Ints larger(Ints a, Ints b) {
    return a > b ? a : b;
}
SPION_INLINE Ints smaller(Ints a, Ints b) {
    return a < b ? a : b;
}

// 0, 1, .. 15.
SPION_INLINE Ints lane_numbers() {
    return Ints{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
}

constexpr float kLog2E = 1.44269504088896341F;
constexpr float kLn2 = 0.693147180559945309F;

// 2^x for x < 128, relative error below 1e-7; 0 below 2^-126, NaN for NaN.
// With n the integer nearest to x, 2^x = 2^n * 2^(x - n), the second factor a minimax polynomial of
// degree 6 on [-1/2, 1/2] (relative error 2e-9).
SPION_INLINE Floats exp2_of(Floats x) {
    const float magic = 12582912.0F;  // 1.5 * 2^23: the sum's low mantissa bits are n
    const Floats shifted = x + magic;
    const Floats f = x - (shifted - magic);
    Floats p = 0.0001534582738F * f + 0.0013399930790F;
    p = p * f + 0.0096184888979F;
    p = p * f + 0.0555032877851F;
    p = p * f + 0.2402264689119F;
    p = p * f + 0.6931472057363F;
    p = p * f + 1.0F;
    const Ints bits = __builtin_bit_cast(Ints, p) + (__builtin_bit_cast(Ints, shifted) << 23);
    return x < -126.0F ? Floats(0.0F) : __builtin_bit_cast(Floats, bits);
}

// Natural logarithm of normal x > 0, relative error about 1e-7; NaN for NaN.
// x = 2^e * z with z in [1/sqrt 2, sqrt 2); ln z = 2 artanh(s), s = (z - 1) / (z + 1).
SPION_INLINE Floats log_of(Floats x) {
    const Ints bits = __builtin_bit_cast(Ints, x);
    const Ints offset = bits - 0x3F3504F3;  // the bits of 1/sqrt 2
    const Ints e = offset >> 23;
    const Floats z = __builtin_bit_cast(Floats, bits - (e << 23));
    const Floats s = (z - 1.0F) / (z + 1.0F);
    const Floats s2 = s * s;
    Floats p = s2 * (2.0F / 9.0F) + 2.0F / 7.0F;
    p = p * s2 + 2.0F / 5.0F;
    p = p * s2 + 2.0F / 3.0F;
    p = p * s2 * s + 2.0F * s;
    const Floats result = __builtin_convertvector(e, Floats) * kLn2 + p;
    return x == x ? result : x;
}

// One stage of a 16 x 16 transposition: exchanges the off-diagonal halves of every 2B x 2B square.
template <int B>
SPION_INLINE void exchange(Floats (&rows)[kLanes]) {
#define SPION_LOW(j) (((j)&B) ? 16 + (j)-B : (j))
#define SPION_HIGH(j) (((j)&B) ? 16 + (j) : (j) + B)
#define SPION_MASK(f)                                                                              \
    f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7), f(8), f(9), f(10), f(11), f(12), f(13), f(14), \
        f(15)
#pragma unroll
    for (int i = 0; i < kLanes; ++i) {
        if ((i & B) == 0) {
            const Floats low = rows[i], high = rows[i + B];
            rows[i] = __builtin_shufflevector(low, high, SPION_MASK(SPION_LOW));
            rows[i + B] = __builtin_shufflevector(low, high, SPION_MASK(SPION_HIGH));
        }
    }
#undef SPION_MASK
#undef SPION_HIGH
#undef SPION_LOW
}

SPION_INLINE void transpose(Floats (&rows)[kLanes]) {
    exchange<8>(rows);
    exchange<4>(rows);
    exchange<2>(rows);
    exchange<1>(rows);
}
