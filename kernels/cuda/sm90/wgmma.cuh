// wgmma.m64nNk16: a warpgroup's products on tensor cores, acc[64, N] (+)= left[64, 16] * right[16,
// N], in the forms that attention needs:
//   products(acc, left, right, add)  Two in a row. Both operands lie in shared memory; the
//                                    contraction runs along their rows, over 32 columns.
//   products<kPitch>(acc, left, right)  Two in a row. left lies in registers; the contraction runs
//                                    across 32 rows of right, 16 of which are kPitch * 16 bytes;
//                                    the products are added.
//   product_across(acc, left, right, add)  Both in shared memory, across the rows of both.
// Two in one statement, as each names all of acc, which is most of what compiling a kernel takes.
// acc[N / 8][4] of a thread has the layout of mma.m16n8 (sm80/warp_mma.cuh) in the warp's 16 rows;
// so has the left operand in registers. Operands in shared memory are named by descriptors
// (sm90/tile.cuh).
//
// Products are asynchronous: between wgmma_fence and wgmma_wait_group nothing may touch acc or
// left, and warpgroup_fence_operand holds the compiler to it. A left operand that stays the same
// for many products belongs in shared memory: held in registers, ptxas 13.0 was seen to give its
// registers to another operand.
#ifndef SPION_WGMMA_CUH
#define SPION_WGMMA_CUH

#include "kernels/cuda/common/contract.cuh"
#include "kernels/cuda/common/element.cuh"
#include "kernels/cuda/sm90/ptx.cuh"

// Operand lists: the accumulator's registers are %0, %1, ...
#define SPION_NAMES_8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define SPION_NAMES_16 SPION_NAMES_8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define SPION_NAMES_24 SPION_NAMES_16 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define SPION_NAMES_32 SPION_NAMES_24 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define SPION_NAMES_40 SPION_NAMES_32 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define SPION_NAMES_48 SPION_NAMES_40 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define SPION_NAMES_56 SPION_NAMES_48 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define SPION_NAMES_64 SPION_NAMES_56 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define SPION_ACC_4(j) "+f"(acc[j][0]), "+f"(acc[j][1]), "+f"(acc[j][2]), "+f"(acc[j][3])
#define SPION_ACC_8(j) SPION_ACC_4(j), SPION_ACC_4(j + 1)
#define SPION_ACC_16(j) SPION_ACC_8(j), SPION_ACC_8(j + 2)
#define SPION_ACC_24(j) SPION_ACC_16(j), SPION_ACC_8(j + 4)
#define SPION_ACC_32(j) SPION_ACC_16(j), SPION_ACC_16(j + 4)
#define SPION_ACC_40(j) SPION_ACC_32(j), SPION_ACC_8(j + 8)
#define SPION_ACC_48(j) SPION_ACC_32(j), SPION_ACC_16(j + 8)
#define SPION_ACC_56(j) SPION_ACC_48(j), SPION_ACC_8(j + 12)
#define SPION_ACC_64(j) SPION_ACC_32(j), SPION_ACC_32(j + 8)

#define SPION_MMA(type, n, registers, operands)                                         \
    "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type " {" SPION_NAMES_##registers \
        "}, " operands ";\n"

// What follows the registers: a .. j are the operand numbers of the rest.
#define SPION_WGMMA(element, type, n, registers, a, b, c, d, e, f, g, h, i, j)                 \
    template <>                                                                                \
    struct Wgmma<element, n> {                                                                 \
        SPION_DEVICE void products(float (&acc)[n / 8][4], unsigned long long left,            \
                                   unsigned long long right, bool add) {                       \
            asm volatile(                                                                      \
                "{ .reg .pred add; setp.ne.b32 add, %" #c                                      \
                ", 0;\n.reg .b64 left, right;\nadd.s64 left, %" #a ", 2;\nadd.s64 right, %" #b \
                ", 2;\n" SPION_MMA(type, n, registers, "%" #a ", %" #b ", add, 1, 1, 0, 0")    \
                    SPION_MMA(type, n, registers, "left, right, 1, 1, 1, 0, 0") "}"            \
                : SPION_ACC_##registers(0)                                                     \
                : "l"(left), "l"(right), "r"((int)add));                                       \
        }                                                                                      \
        SPION_DEVICE void product_across(float (&acc)[n / 8][4], unsigned long long left,      \
                                         unsigned long long right, bool add) {                 \
            asm volatile("{ .reg .pred add; setp.ne.b32 add, %" #c ", 0;\n" SPION_MMA(         \
                             type, n, registers, "%" #a ", %" #b ", add, 1, 1, 1, 1") "}"      \
                         : SPION_ACC_##registers(0)                                            \
                         : "l"(left), "l"(right), "r"((int)add));                              \
        }                                                                                      \
        template <int kPitch>                                                                  \
        SPION_DEVICE void products(float (&acc)[n / 8][4], const unsigned (&first)[4],         \
                                   const unsigned (&second)[4], unsigned long long right) {    \
            asm volatile(                                                                      \
                "{ .reg .b64 right;\nadd.s64 right, %" #i ", %" #j                             \
                ";\n" SPION_MMA(type, n, registers,                                            \
                                "{%" #a ", %" #b ", %" #c ", %" #d "}, %" #i ", 1, 1, 1, 1")   \
                    SPION_MMA(type, n, registers,                                              \
                              "{%" #e ", %" #f ", %" #g ", %" #h "}, right, 1, 1, 1, 1") "}"   \
                : SPION_ACC_##registers(0)                                                     \
                : "r"(first[0]), "r"(first[1]), "r"(first[2]), "r"(first[3]), "r"(second[0]),  \
                  "r"(second[1]), "r"(second[2]), "r"(second[3]), "l"(right), "n"(kPitch));    \
        }                                                                                      \
    };

template <typename E, int kColumns>
struct Wgmma;
SPION_WGMMA(Bf16, "bf16.bf16", 16, 8, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17)
SPION_WGMMA(Bf16, "bf16.bf16", 32, 16, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25)
SPION_WGMMA(Bf16, "bf16.bf16", 48, 24, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33)
SPION_WGMMA(Bf16, "bf16.bf16", 64, 32, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41)
SPION_WGMMA(Bf16, "bf16.bf16", 80, 40, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49)
SPION_WGMMA(Bf16, "bf16.bf16", 96, 48, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57)
SPION_WGMMA(Bf16, "bf16.bf16", 112, 56, 56, 57, 58, 59, 60, 61, 62, 63, 64, 65)
SPION_WGMMA(Bf16, "bf16.bf16", 128, 64, 64, 65, 66, 67, 68, 69, 70, 71, 72, 73)
SPION_WGMMA(Fp16, "f16.f16", 16, 8, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17)
SPION_WGMMA(Fp16, "f16.f16", 32, 16, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25)
SPION_WGMMA(Fp16, "f16.f16", 48, 24, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33)
SPION_WGMMA(Fp16, "f16.f16", 64, 32, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41)
SPION_WGMMA(Fp16, "f16.f16", 80, 40, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49)
SPION_WGMMA(Fp16, "f16.f16", 96, 48, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57)
SPION_WGMMA(Fp16, "f16.f16", 112, 56, 56, 57, 58, 59, 60, 61, 62, 63, 64, 65)
SPION_WGMMA(Fp16, "f16.f16", 128, 64, 64, 65, 66, 67, 68, 69, 70, 71, 72, 73)

// Neither reads nor writes of acc move across this.
template <int kTiles>
SPION_DEVICE void warpgroup_fence_operand(float (&acc)[kTiles][4]) {
#pragma unroll
    for (int j = 0; j < kTiles; ++j) asm volatile("" : SPION_ACC_4(j)::"memory");
}

// The same for an acc that products will overwrite: what it holds until then is not kept anywhere.
template <int kTiles>
SPION_DEVICE void warpgroup_discard_operand(float (&acc)[kTiles][4]) {
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
        asm volatile(""
                     : "=f"(acc[j][0]), "=f"(acc[j][1]), "=f"(acc[j][2]),
                       "=f"(acc[j][3])::"memory");
    }
}

template <int kSteps>
SPION_DEVICE void warpgroup_fence_operand(unsigned (&left)[kSteps][4]) {
#pragma unroll
    for (int j = 0; j < kSteps; ++j) {
        asm volatile(""
                     : "+r"(left[j][0]), "+r"(left[j][1]), "+r"(left[j][2]),
                       "+r"(left[j][3])::"memory");
    }
}

#endif
