// The instructions of sm_90a beyond common/ptx.cuh: barriers that count bytes, tensor copies, and
// what orders wgmma. One function each. "Shared address" = 32-bit address in the shared window.
#ifndef SPION_SM90_PTX_CUH
#define SPION_SM90_PTX_CUH

#include "kernels/cuda/common/ptx.cuh"
#include "kernels/sm90_arguments.h"

// The thread's index, read anew: what is computed from it is not kept in registers across a step.
SPION_DEVICE unsigned thread_now() {
    unsigned thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    return thread;
}

// An mbarrier is 8 bytes of shared memory. A phase ends when `arrivals` have come and every byte
// that was announced has been written; the phases of a barrier have parity 0, 1, 0, ...
SPION_DEVICE void mbarrier_init(unsigned barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals)
                 : "memory");
}

// Makes initialised barriers visible to TMA.
SPION_DEVICE void fence_mbarrier_init() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

SPION_DEVICE void mbarrier_arrive(unsigned barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// A warp is done with what `barrier` guards, which only TMA, wgmma and ldmatrix touch: one arrival.
SPION_DEVICE void mbarrier_arrive_by_warp(unsigned barrier) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) mbarrier_arrive(barrier);
}

// The same of what lanes load or store themselves: one arrival a lane. (One after __syncwarp would
// order the others' accesses too, but racecheck takes it for that lane's alone.)
SPION_DEVICE void mbarrier_arrive_by_lanes(unsigned barrier) {
    mbarrier_arrive(barrier);
}

// Arrives and announces `bytes` that copies will write.
SPION_DEVICE void mbarrier_arrive_expect_tx(unsigned barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

// Arrives when this thread's earlier cp.async copies are there.
SPION_DEVICE void cp_async_mbarrier_arrive_noinc(unsigned barrier) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

// Waits for the end of the barrier's current phase if that has parity `parity`; passes at once when
// the phase is a later one. On a fresh barrier parity 1 passes.
SPION_DEVICE void mbarrier_wait(unsigned barrier, unsigned parity) {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "WAIT%=: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@!done bra WAIT%=;\n"
        "}" ::"r"(barrier),
        "r"(parity)
        : "memory");
}

// Whether mbarrier_wait would pass at once.
SPION_DEVICE bool mbarrier_test_wait(unsigned barrier, unsigned parity) {
    unsigned passed;
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "mbarrier.test_wait.parity.shared::cta.b64 done, [%1], %2;\n"
        "selp.u32 %0, 1, 0, done;\n"
        "}"
        : "=r"(passed)
        : "r"(barrier), "r"(parity)
        : "memory");
    return passed != 0;
}

// Copies the map's box at (column, row, head, batch) to shared memory; elements outside the tensor
// become zeros. Counts its bytes at `barrier`, those of zeros too.
SPION_DEVICE void tma_load(unsigned target, const SpionTensorMap& map, unsigned barrier, int column,
                           int row, int head, int batch) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes"
        " [%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(target),
        "l"(&map), "r"(column), "r"(row), "r"(head), "r"(batch), "r"(barrier)
        : "memory");
}

SPION_DEVICE void prefetch_tensormap(const SpionTensorMap& map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

// Four 8x8 matrices of 16-bit elements from registers to shared memory; lane l gives the address of
// row l % 8 of matrix l / 8.
SPION_DEVICE void stmatrix_x4(unsigned address, const unsigned (&in)[4]) {
    asm volatile(
        "stmatrix.sync.aligned.m8n8.x4.shared::cta.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
        "r"(in[0]), "r"(in[1]), "r"(in[2]), "r"(in[3])
        : "memory");
}

// Bulk transfers from shared to global memory by one thread; bytes a multiple of 16. Those of a
// thread since its last cp_async_bulk_commit_group are one batch.
SPION_DEVICE void cp_async_bulk_store(void* target, unsigned source, int bytes) {
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(target),
                 "r"(source), "r"(bytes)
                 : "memory");
}

// 16 bytes from the L2, whatever the L1 holds of them; a multiple of 16.
SPION_DEVICE float4 load_global_float4(const void* source) {
    float4 value;
    asm volatile("ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(value.x), "=f"(value.y), "=f"(value.z), "=f"(value.w)
                 : "l"(source)
                 : "memory");
    return value;
}

// Adds fp32 elements, each once and at one place.
SPION_DEVICE void cp_reduce_async_bulk_add(void* target, unsigned source, int bytes) {
    asm volatile(
        "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(target),
        "r"(source), "r"(bytes)
        : "memory");
}

SPION_DEVICE void cp_async_bulk_commit_group() {
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

// Waits until this thread's transfers have read their sources.
SPION_DEVICE void cp_async_bulk_wait_group_read() {
    asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

// Waits until all but this thread's kPending youngest batches have arrived.
template <int kPending>
SPION_DEVICE void cp_async_bulk_wait_group() {
    asm volatile("cp.async.bulk.wait_group %0;" ::"n"(kPending) : "memory");
}

SPION_DEVICE unsigned ld_acquire(const unsigned* address) {
    unsigned value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(address) : "memory");
    return value;
}

// The same, of a thread that has something else to do while the word stays as it is.
SPION_DEVICE unsigned ld_acquire_once(const unsigned* address) {
    return ld_acquire(address);
}

SPION_DEVICE void st_release(unsigned* address, unsigned value) {
    asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(address), "r"(value) : "memory");
}

// Orders what other proxies have done to global memory and what this thread has seen done.
SPION_DEVICE void fence_proxy_async_global() {
    asm volatile("fence.proxy.async.global;" ::: "memory");
}

// Orders this thread's ordinary accesses to shared memory before later ones of TMA and wgmma.
SPION_DEVICE void fence_proxy_async_shared() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Before the first product of a batch, and after registers of products have been written.
SPION_DEVICE void wgmma_fence() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

// Closes a batch of products.
SPION_DEVICE void wgmma_commit_group() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Waits until all but the kPending youngest batches are done.
template <int kPending>
SPION_DEVICE void wgmma_wait_group() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// Sets the registers a thread of the warpgroup from here on: inc takes some, dec gives some back.
template <int kRegisters>
SPION_DEVICE void setmaxnreg_inc() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

template <int kRegisters>
SPION_DEVICE void setmaxnreg_dec() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// Lets the next kernel of the stream start its blocks where this one's have left, if it was
// launched to do so.
SPION_DEVICE void griddepcontrol_launch_dependents() {
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

// Waits until the kernels before this one in the stream have finished and what they wrote is seen.
SPION_DEVICE void griddepcontrol_wait() {
    asm volatile("griddepcontrol.wait;" ::: "memory");
}

#endif
