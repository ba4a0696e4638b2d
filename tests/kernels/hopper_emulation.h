// Stands in for kernels/cuda/sm90/ptx.cuh and kernels/cuda/sm90/wgmma.cuh, beside
// cuda_emulation.h: barriers that count bytes, TMA, bulk transfers and wgmma on the host.
//
// Asynchronous: a transfer reads its source and writes its target at moments drawn at random, and
// a group of products is computed when it is closed or at the wait that covers it, so that what is
// read too early, overwritten too soon or waited for by nobody gives wrong results or an error.
// Not emulated: the order of memory accesses of different threads and proxies, which here is that
// of the turns, and what ptxas does with registers of products that are under way.
#pragma once

#define SPION_SM90_PTX_CUH
#define SPION_WGMMA_CUH

#include <limits>

#include "kernels/attention_arguments.h"
#include "kernels/sm90_arguments.h"
#include "tests/kernels/cuda_emulation.h"

struct uint2 {
    unsigned x, y;
};

namespace spion::emulation {

// A map as tma_load below reads it: of [batch, heads, length, width], 16-bit elements, strides in
// bytes of rows, heads and batch.
struct TensorBox {
    const void* data;
    std::int64_t width, length, heads, batch;
    std::int64_t row_stride, head_stride, batch_stride;
    std::int64_t columns, rows;  // of the box
};
SpionTensorMap tensor_map(const TensorBox& box);

// Runs the blocks of a kernel for sm_90a at once.
void launch_hopper(std::int64_t blocks, int threads, int shared_bytes, unsigned seed,
                   const std::function<void()>& kernel);

void mbarrier_init(unsigned barrier, int arrivals);
void mbarrier_arrive(unsigned barrier, int bytes);
void mbarrier_wait(unsigned barrier, unsigned parity);
void arrive_after_copies(unsigned barrier);
void tma_load(unsigned target, const SpionTensorMap& map, unsigned barrier, const int (&at)[4]);
void bulk_store(void* target, unsigned source, int bytes, bool add);
void wait_for_bulk(bool reads_alone);
unsigned poll(const unsigned* address);
void pass_turn();  // of a thread that looks for what is there, and goes on either way

// A product of a warpgroup as a thread takes part in it: its rows lane / 4 and + 8 of the warp's 16
// times all columns.
struct Product {
    float* acc;   // [columns / 8][4]
    int columns;  // N
    bool add;
    bool left_in_registers;
    float left[2][16];  // of registers
    unsigned long long left_descriptor, right_descriptor;
    bool across;        // both descriptors' contractions run across rows
    bool right_across;  // that of the right one
    float (*decode)(std::uint16_t bits);
};
void start_product(const Product& product);
void commit_products();
void wait_for_products(int pending);

}  // namespace spion::emulation

// ---- the functions of sm90/ptx.cuh -----------------------------------------------------------

SPION_DEVICE unsigned thread_now() {
    return threadIdx.x;
}
SPION_DEVICE void __trap() {
    spion::emulation::fail("trap");
}
SPION_DEVICE void mbarrier_init(unsigned barrier, int arrivals) {
    spion::emulation::mbarrier_init(barrier, arrivals);
}
SPION_DEVICE void fence_mbarrier_init() {}
SPION_DEVICE void mbarrier_arrive(unsigned barrier) {
    spion::emulation::mbarrier_arrive(barrier, 0);
}
SPION_DEVICE void mbarrier_arrive_by_warp(unsigned barrier) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) mbarrier_arrive(barrier);
}
SPION_DEVICE void mbarrier_arrive_by_lanes(unsigned barrier) {
    mbarrier_arrive(barrier);
}
SPION_DEVICE void mbarrier_arrive_expect_tx(unsigned barrier, int bytes) {
    spion::emulation::mbarrier_arrive(barrier, bytes);
}
SPION_DEVICE void cp_async_mbarrier_arrive_noinc(unsigned barrier) {
    spion::emulation::arrive_after_copies(barrier);
}
SPION_DEVICE void mbarrier_wait(unsigned barrier, unsigned parity) {
    spion::emulation::mbarrier_wait(barrier, parity);
}
SPION_DEVICE void tma_load(unsigned target, const SpionTensorMap& map, unsigned barrier, int column,
                           int row, int head, int batch) {
    spion::emulation::tma_load(target, map, barrier, {column, row, head, batch});
}
SPION_DEVICE void prefetch_tensormap(const SpionTensorMap&) {}
SPION_DEVICE void stmatrix_x4(unsigned address, const unsigned (&in)[4]) {
    const spion::emulation::Words* lanes = spion::emulation::exchange({{address}});
    const unsigned lane = threadIdx.x % 32;
    for (unsigned matrix = 0; matrix < 4; ++matrix) {
        const unsigned row = lanes[8 * matrix + lane / 4].word[0];
        if (row % 16 != 0) spion::emulation::fail("stmatrix: a row is not aligned");
        store_shared_word(row + lane % 4 * 4, in[matrix]);
    }
}
SPION_DEVICE float4 make_float4(float x, float y, float z, float w) {
    return {x, y, z, w};
}
SPION_DEVICE uint2 make_uint2(unsigned x, unsigned y) {
    return {x, y};
}
SPION_DEVICE float4 load_global_float4(const void* source) {
    float4 value;
    std::memcpy(&value, source, sizeof(value));
    return value;
}
SPION_DEVICE void cp_async_bulk_store(void* target, unsigned source, int bytes) {
    spion::emulation::bulk_store(target, source, bytes, false);
}
SPION_DEVICE void cp_reduce_async_bulk_add(void* target, unsigned source, int bytes) {
    spion::emulation::bulk_store(target, source, bytes, true);
}
SPION_DEVICE void cp_async_bulk_commit_group() {}
SPION_DEVICE void cp_async_bulk_wait_group_read() {
    spion::emulation::wait_for_bulk(true);
}
template <int kPending>
SPION_DEVICE void cp_async_bulk_wait_group() {
    static_assert(kPending == 0);
    spion::emulation::wait_for_bulk(false);
}
SPION_DEVICE unsigned ld_acquire(const unsigned* address) {
    return spion::emulation::poll(address);
}
SPION_DEVICE unsigned ld_acquire_once(const unsigned* address) {
    spion::emulation::pass_turn();
    return *address;
}
SPION_DEVICE void __threadfence() {}
SPION_DEVICE void st_release(unsigned* address, unsigned value) {
    *address = value;
}
SPION_DEVICE unsigned atomicAdd(unsigned* address, unsigned value) {
    const unsigned before = *address;
    *address += value;
    return before;
}
SPION_DEVICE void fence_proxy_async_global() {}
SPION_DEVICE void fence_proxy_async_shared() {}
SPION_DEVICE void griddepcontrol_launch_dependents() {}
SPION_DEVICE void griddepcontrol_wait() {}
template <int kRegisters>
SPION_DEVICE void setmaxnreg_inc() {}
template <int kRegisters>
SPION_DEVICE void setmaxnreg_dec() {}
SPION_DEVICE void wgmma_fence() {}
SPION_DEVICE void wgmma_commit_group() {
    spion::emulation::commit_products();
}
template <int kPending>
SPION_DEVICE void wgmma_wait_group() {
    spion::emulation::wait_for_products(kPending);
}

// ---- wgmma.cuh -------------------------------------------------------------------------------

template <typename E, int kColumns>
struct Wgmma {
    static float decode(std::uint16_t bits) { return E::low(bits); }

    static void products(float (&acc)[kColumns / 8][4], unsigned long long left,
                         unsigned long long right, bool add) {
        for (int step = 0; step < 2; ++step) {
            start(acc, add || step > 0, left + 2 * step, right + 2 * step, false);
        }
    }
    static void product_across(float (&acc)[kColumns / 8][4], unsigned long long left,
                               unsigned long long right, bool add) {
        start(acc, add, left, right, true);
    }
    template <int kPitch>
    static void products(float (&acc)[kColumns / 8][4], const unsigned (&first)[4],
                         const unsigned (&second)[4], unsigned long long right) {
        start(acc, first, right);
        start(acc, second, right + kPitch);
    }

  private:
    static void start(float (&acc)[kColumns / 8][4], bool add, unsigned long long left,
                      unsigned long long right, bool across) {
        spion::emulation::start_product({.acc = &acc[0][0],
                                         .columns = kColumns,
                                         .add = add,
                                         .left_in_registers = false,
                                         .left = {},
                                         .left_descriptor = left,
                                         .right_descriptor = right,
                                         .across = across,
                                         .right_across = across,
                                         .decode = decode});
    }
    // The registers as they are when the product starts: a0 (row g, k 2t and the next), a1 (g + 8),
    // a2 (g, k + 8), a3 (g + 8, k + 8), of lanes 4g + t.
    static void start(float (&acc)[kColumns / 8][4], const unsigned (&left)[4],
                      unsigned long long right) {
        const spion::emulation::Words* lanes =
            spion::emulation::exchange({{left[0], left[1], left[2], left[3]}});
        spion::emulation::Product product{.acc = &acc[0][0],
                                          .columns = kColumns,
                                          .add = true,
                                          .left_in_registers = true,
                                          .left = {},
                                          .left_descriptor = 0,
                                          .right_descriptor = right,
                                          .across = false,
                                          .right_across = true,
                                          .decode = decode};
        const unsigned first_lane = threadIdx.x % 32 / 4 * 4;
        for (int k = 0; k < 16; ++k) {
            for (int half = 0; half < 2; ++half) {
                const unsigned word = lanes[first_lane + k % 8 / 2].word[k / 8 * 2 + half];
                product.left[half][k] = decode(static_cast<std::uint16_t>(word >> (16 * (k % 2))));
            }
        }
        spion::emulation::start_product(product);
    }
};

template <int kTiles>
SPION_DEVICE void warpgroup_fence_operand(float (&)[kTiles][4]) {}
template <int kSteps>
SPION_DEVICE void warpgroup_fence_operand(unsigned (&)[kSteps][4]) {}
template <int kTiles>
SPION_DEVICE void warpgroup_discard_operand(float (&acc)[kTiles][4]) {
    for (int j = 0; j < kTiles; ++j) {
        for (int i = 0; i < 4; ++i) acc[j][i] = std::numeric_limits<float>::quiet_NaN();
    }
}
