// Whether the step at hand is left out, and the next one's loss scale; one thread block.
#pragma once

#include "kernels/cuda/train/contract.cuh"

extern "C" __global__ void __launch_bounds__(kThreads)
    update_loss_scale(const __grid_constant__ SpionLossScaleArguments args) {
    const int items =
        static_cast<int>((args.count + kSpionAdamValuesPerItem - 1) / kSpionAdamValuesPerItem);
    int mine = 0;
    for (int i = threadIdx.x; i < items; i += kThreads) mine |= args.not_finite[i];
    const bool overflow = __syncthreads_or(mine) != 0;
    if (threadIdx.x != 0) return;
    spion_next_loss_scale(*args.state, overflow, args.growth_steps);
    if (args.used != nullptr) *args.used = args.state->used;
}
