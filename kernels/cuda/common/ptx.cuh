// The instructions that C++ has no word for, one function each. Nothing else here uses asm.
// "Shared address" = 32-bit address in the shared window.
#ifndef SPION_PTX_CUH
#define SPION_PTX_CUH

#define SPION_DEVICE static __device__ __forceinline__

extern __shared__ __align__(128) unsigned char spion_shared_memory[];

// First byte of the block's dynamic shared memory, a multiple of 128.
SPION_DEVICE unsigned shared_memory_start() {
    return (unsigned)__cvta_generic_to_shared(spion_shared_memory);
}

// Copies 16 bytes from global to shared memory, or writes 16 zeros when `present` is false (source
// is then not read). Both addresses are multiples of 16. Arrives by cp_async_wait_group.
SPION_DEVICE void cp_async_16(unsigned target, const void* source, bool present) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target),
                 "l"(__cvta_generic_to_global(source)), "r"(present ? 16 : 0)
                 : "memory");
}

// The same for one float.
SPION_DEVICE void cp_async_4(unsigned target, const void* source, bool present) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(target),
                 "l"(__cvta_generic_to_global(source)), "r"(present ? 4 : 0)
                 : "memory");
}

// Closes a group of this thread's copies.
SPION_DEVICE void cp_async_commit_group() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until all but the kPending youngest groups of this thread have arrived.
template <int kPending>
SPION_DEVICE void cp_async_wait_group() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Four 8 x 8 matrices of 16-bit elements. Lane i gives the shared address of row i % 8 (16 bytes)
// of matrix i / 8; out[m] = elements (lane / 4, 2 * (lane % 4) + {0, 1}) of matrix m.
SPION_DEVICE void ldmatrix_x4(unsigned (&out)[4], unsigned address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address)
                 : "memory");
}

// The same with every matrix transposed: out[m] = elements (2 * (lane % 4) + {0, 1}, lane / 4).
SPION_DEVICE void ldmatrix_x4_trans(unsigned (&out)[4], unsigned address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address)
                 : "memory");
}

// d[16 x 8] += a[16 x 16] * b[16 x 8]. With g = lane / 4, t = lane % 4:
//   d: (g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1)
//   a: pairs of k at (g, 2t), (g+8, 2t), (g, 2t+8), (g+8, 2t+8)
//   b: pairs of k at (2t, g), (2t+8, g)
SPION_DEVICE void mma_bf16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

SPION_DEVICE void mma_fp16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// d[16 x 8] += a[16 x 8] * b[8 x 8]; d as above,
//   a: (g, t), (g+8, t), (g, t+4), (g+8, t+4)    b: (t, g), (t+4, g)
SPION_DEVICE void mma_tf32(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// 2^x and log2(x), relative error about 2^-22; 2^-inf = 0, log2(0) = -inf.
SPION_DEVICE float ex2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

SPION_DEVICE float lg2_approx(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// 1 / x, relative error about 2^-23.
SPION_DEVICE float rcp_approx(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Square root, relative error about 2^-23.
SPION_DEVICE float sqrt_approx(float x) {
    float y;
    asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// tanh(x), relative error about 2^-11.
SPION_DEVICE float tanh_approx(float x) {
    float y;
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// a * b, all 64 bits.
SPION_DEVICE unsigned long long multiply_wide(unsigned a, unsigned b) {
    unsigned long long product;
    asm("mul.wide.u32 %0, %1, %2;" : "=l"(product) : "r"(a), "r"(b));
    return product;
}

// x, or 0 where `bits` is 0: a product under a predicate, so that it is not the integer pipe's, as a
// selection would be.
SPION_DEVICE float keep_where(unsigned bits, float x) {
    asm("{\n"
        ".reg .pred dropped;\n"
        "setp.eq.s32 dropped, %1, 0;\n"
        "@dropped mul.f32 %0, %0, 0f00000000;\n"
        "}"
        : "+f"(x)
        : "r"(bits));
    return x;
}

// Byte n of the result is that which digit n (4 bits) of `selector` names of the 8 of low and high;
// with 8 more, its sign 8 times.
SPION_DEVICE unsigned permute_bytes(unsigned low, unsigned high, unsigned selector) {
    unsigned word;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(word) : "r"(low), "r"(high), "r"(selector));
    return word;
}

// Two floats as 16-bit elements, rounded to nearest even; `low` in the low half.
SPION_DEVICE unsigned pack_bf16(float low, float high) {
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

SPION_DEVICE unsigned pack_fp16(float low, float high) {
    unsigned pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

SPION_DEVICE float fp16_to_float(unsigned short bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

// The bits of x rounded to tf32 (ties away from zero), as mma_tf32 takes them.
SPION_DEVICE unsigned cvt_rna_tf32(float x) {
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}

SPION_DEVICE float load_shared_float(unsigned address) {
    float value;
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(value) : "r"(address) : "memory");
    return value;
}

SPION_DEVICE unsigned load_shared_word(unsigned address) {
    unsigned value;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(value) : "r"(address) : "memory");
    return value;
}

SPION_DEVICE float2 load_shared_float2(unsigned address) {
    float2 value;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];"
                 : "=f"(value.x), "=f"(value.y)
                 : "r"(address)
                 : "memory");
    return value;
}

SPION_DEVICE uint4 load_shared_16(unsigned address) {
    uint4 value;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "r"(address)
                 : "memory");
    return value;
}

SPION_DEVICE void store_shared_float(unsigned address, float value) {
    asm volatile("st.shared.f32 [%0], %1;" ::"r"(address), "f"(value) : "memory");
}

SPION_DEVICE void store_shared_float2(unsigned address, float x, float y) {
    asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(address), "f"(x), "f"(y) : "memory");
}

SPION_DEVICE void store_shared_16(unsigned address, uint4 value) {
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(value.x),
                 "r"(value.y), "r"(value.z), "r"(value.w)
                 : "memory");
}

// Stores 16 bytes in global memory if they are `present`, without a branch that the work around it
// would have to stay on its side of.
SPION_DEVICE void store_global_16(void* target, uint4 value, bool present) {
    asm volatile(
        "{\n"
        ".reg .pred present;\n"
        "setp.ne.s32 present, %5, 0;\n"
        "@present st.global.v4.u32 [%0], {%1, %2, %3, %4};\n"
        "}" ::"l"(__cvta_generic_to_global(target)),
        "r"(value.x), "r"(value.y), "r"(value.z), "r"(value.w), "r"((int)present)
        : "memory");
}

SPION_DEVICE void store_shared_word(unsigned address, unsigned value) {
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(address), "r"(value) : "memory");
}

// 0, as grids are of one dimension, which the compiler does not know: what is computed with it is not
// computed ahead of a loop, and has registers of its own.
SPION_DEVICE unsigned run_time_zero() {
    unsigned zero;
    asm volatile("mov.u32 %0, %%ctaid.y;" : "=r"(zero));
    return zero;
}

// Waits for `threads` threads at barrier `id` (1 to 15), those that only arrive included; what each
// of them wrote to shared memory is seen then.
SPION_DEVICE void bar_sync(int id, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
SPION_DEVICE void bar_arrive(int id, int threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

#endif
