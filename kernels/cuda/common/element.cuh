// The four element types: how a value is stored and which engine multiplies.
// The generated source names one of them: using Element = struct Bf16;
#ifndef SPION_ELEMENT_CUH
#define SPION_ELEMENT_CUH

#include "kernels/cuda/common/ptx.cuh"

struct Bf16 {
    enum : int { kBytes = 2 };
    SPION_DEVICE unsigned pack(float low, float high) { return pack_bf16(low, high); }
    SPION_DEVICE float low(unsigned pair) { return __uint_as_float(pair << 16); }
    SPION_DEVICE float high(unsigned pair) { return __uint_as_float(pair & 0xFFFF0000U); }
    SPION_DEVICE void mma(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
        mma_bf16(d, a, b0, b1);
    }
};

struct Fp16 {
    enum : int { kBytes = 2 };
    SPION_DEVICE unsigned pack(float low, float high) { return pack_fp16(low, high); }
    SPION_DEVICE float low(unsigned pair) { return fp16_to_float((unsigned short)pair); }
    SPION_DEVICE float high(unsigned pair) { return fp16_to_float((unsigned short)(pair >> 16)); }
    SPION_DEVICE void mma(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
        mma_fp16(d, a, b0, b1);
    }
};

struct Tf32 {
    enum : int { kBytes = 4 };
};

struct Fp32 {
    enum : int { kBytes = 4 };
};

// Two neighbouring elements, rounded and stored to shared memory.
template <typename E>
SPION_DEVICE void store_pair(unsigned address, float x, float y) {
    if constexpr (E::kBytes == 2) {
        store_shared_word(address, E::pack(x, y));
    } else {
        store_shared_float2(address, x, y);
    }
}

template <typename E>
SPION_DEVICE float dot_word(unsigned a, unsigned b, float sum) {
    if constexpr (E::kBytes == 2) {
        return __fmaf_rn(E::high(a), E::high(b), __fmaf_rn(E::low(a), E::low(b), sum));
    } else {
        return __fmaf_rn(__uint_as_float(a), __uint_as_float(b), sum);
    }
}

// The inner product of two chunks of 16 bytes.
template <typename E>
SPION_DEVICE float dot_chunk(uint4 a, uint4 b) {
    float sum = dot_word<E>(a.x, b.x, 0.0F);
    sum = dot_word<E>(a.y, b.y, sum);
    sum = dot_word<E>(a.z, b.z, sum);
    return dot_word<E>(a.w, b.w, sum);
}

#endif
