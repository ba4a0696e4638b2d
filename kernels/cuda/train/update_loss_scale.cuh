// Whether the step at hand is left out, and the next one's loss scale; one thread block.
#pragma once

#include "kernels/cuda/train/contract.cuh"

extern "C" __global__ void __launch_bounds__(kThreads)
    update_loss_scale(const __grid_constant__ SpionLossScaleArguments args) {
    const int items = static_cast<int>(spion_adam_items(args.count));
    const int slot = args.now != nullptr ? args.now->slot : 0;
    const int* not_finite = args.not_finite + static_cast<long long>(slot) * items;
    int mine = 0;
    for (int i = threadIdx.x; i < items; i += kThreads) mine |= not_finite[i];
    const bool overflow = __syncthreads_or(mine) != 0;
    if (threadIdx.x != 0) return;
    spion_next_loss_scale(*args.state, overflow, args.growth_steps);
    if (args.used != nullptr) args.used[slot] = args.state->used;
}
