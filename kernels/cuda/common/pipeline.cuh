// The pipeline of kStages buffers in shared memory that cp.async fills.
#ifndef SPION_PIPELINE_CUH
#define SPION_PIPELINE_CUH

#include "kernels/cuda/common/contract.cuh"
#include "kernels/cuda/common/ptx.cuh"

// `copy(step, buffer)` starts a step's copies. begin_steps starts all that fit before anything
// waits; copies that the caller started earlier arrive with step 0.
template <typename Copy>
SPION_DEVICE void begin_steps(int steps, const Copy& copy) {
#pragma unroll
    for (int stage = 0; stage < kStages; ++stage) {
        if (stage < steps) copy(stage, stage);
        cp_async_commit_group();
    }
}

// Waits for this thread's share of what was started before and with step 0.
SPION_DEVICE void wait_first() {
    cp_async_wait_group<kStages - 1>();
}

// Called once for every step in order: waits for its rows, calls arrived(buffer) when this thread's
// own copies are there, and refills the buffer of the step before. Returns the step's buffer.
template <typename Copy, typename Arrived>
SPION_DEVICE int await_step(int step, int steps, const Copy& copy, const Arrived& arrived) {
    if constexpr (kStages == 1) {
        if (step > 0) {
            __syncthreads();
            copy(step, 0);
            cp_async_commit_group();
        }
        cp_async_wait_group<0>();
    } else if (step == 0) {
        cp_async_wait_group<kStages - 1>();
    } else {
        cp_async_wait_group<kStages - 2>();
    }
    arrived(step % kStages);
    __syncthreads();
    if (kStages > 1 && step > 0) {
        const int next = step + kStages - 1;
        if (next < steps) copy(next, next % kStages);
        cp_async_commit_group();
    }
    return step % kStages;
}

#endif
