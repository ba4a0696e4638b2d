// The instructions of sm_90a beyond ptx.cuh: barriers that count bytes, tensor copies, and what
// orders wgmma. One function each. "Shared address" = 32-bit address in the shared window.
#ifndef SPION_HOPPER_PTX_CUH
#define SPION_HOPPER_PTX_CUH

#include "hopper_arguments.h"
#include "ptx.cuh"

// An mbarrier is 8 bytes of shared memory. A phase ends when `arrivals` have come and every byte
// that was announced has been written; the phases of a barrier have parity 0, 1, 0, ...
SPION_DEVICE void barrier_init(unsigned barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals)
                 : "memory");
}

// Makes initialised barriers visible to the copy engine.
SPION_DEVICE void barrier_init_done() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

SPION_DEVICE void barrier_arrive(unsigned barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// Arrives and announces `bytes` that copies will write.
SPION_DEVICE void barrier_arrive_expecting(unsigned barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

// Arrives when this thread's earlier cp.async copies are there.
SPION_DEVICE void barrier_arrive_after_copies(unsigned barrier) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

// Waits for the end of the barrier's current phase if that has parity `parity`; passes at once when
// the phase is a later one. On a fresh barrier parity 1 passes.
SPION_DEVICE void barrier_wait(unsigned barrier, unsigned parity) {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "WAIT%=: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@!done bra WAIT%=;\n"
        "}" ::"r"(barrier),
        "r"(parity)
        : "memory");
}

// Copies the map's box at (column, row, head, batch) to shared memory; elements outside the tensor
// become zeros. Counts its bytes at `barrier`, those of zeros too.
SPION_DEVICE void copy_box(unsigned target, const SpionTensorMap& map, unsigned barrier, int column,
                           int row, int head, int batch) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes"
        " [%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(target),
        "l"(&map), "r"(column), "r"(row), "r"(head), "r"(batch), "r"(barrier)
        : "memory");
}

SPION_DEVICE void prefetch_map(const SpionTensorMap& map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

// Orders this thread's ordinary accesses to shared memory before later ones of TMA and wgmma.
SPION_DEVICE void fence_to_async() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Before the first product of a batch, and after registers of products have been written.
SPION_DEVICE void wgmma_fence() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

// Closes a batch of products.
SPION_DEVICE void wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Waits until all but the kPending youngest batches are done.
template <int kPending>
SPION_DEVICE void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// A warpgroup's registers a thread from here on.
template <int kRegisters>
SPION_DEVICE void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

template <int kRegisters>
SPION_DEVICE void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// Lets the next kernel of the stream start its blocks where this one's have left, if it was
// launched to do so.
SPION_DEVICE void let_next_kernel_start() {
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

// Waits until the kernels before this one in the stream have finished and what they wrote is seen.
SPION_DEVICE void wait_for_earlier_kernels() {
    asm volatile("griddepcontrol.wait;" ::: "memory");
}

// Waits for `threads` threads at barrier `id` (1 to 15).
SPION_DEVICE void named_barrier(int id, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

#endif
