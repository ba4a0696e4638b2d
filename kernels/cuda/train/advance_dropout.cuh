// Moves dropout on to other random numbers: its state lies in device memory, so that a replayed CUDA
// graph does so too. One thread.
#pragma once

#include "kernels/cuda/train/contract.cuh"
#include "kernels/dropout_arguments.h"

extern "C" __global__ void __launch_bounds__(kThreads)
    advance_dropout(const __grid_constant__ SpionDropoutAdvance args) {
    if (blockIdx.x == 0 && threadIdx.x == 0) args.state->offset += args.by;
}
