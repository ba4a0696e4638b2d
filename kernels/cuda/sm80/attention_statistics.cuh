// LSE and delta of the query rows that stream past a key tile: two arrays [kStreamedRows] fp32 a
// stage, LSE first.
#ifndef SPION_ATTENTION_STATISTICS_CUH
#define SPION_ATTENTION_STATISTICS_CUH

#include "kernels/cuda/common/attention_walk.cuh"
#include "kernels/cuda/common/contract.cuh"
#include "kernels/cuda/common/score.cuh"

// Starts copying the step's LSE and delta to `statistics`, LSE first; zeros where there is no row.
SPION_DEVICE void copy_statistics(const Walk& walk, int step, unsigned statistics, const float* lse,
                                  const float* delta) {
    const int present = walk.valid - step * kStreamedRows;
#pragma unroll
    for (int i = 0; i < (kStreamedRows + kThreads - 1) / kThreads; ++i) {
        const int row = i * kThreads + (int)threadIdx.x;
        const int entry = (step * kGatherBlocksPerStep + row / kGatherRows) & 31;
        const int gather_block = __shfl_sync(0xFFFFFFFFU, walk.window, entry);
        if (kStreamedRows % kThreads != 0 && row >= kStreamedRows) break;
        const int source = gather_block * kGatherRows + row % kGatherRows;
        cp_async_4(statistics + row * 4, lse + source, row < present);
        cp_async_4(statistics + (kStreamedRows + row) * 4, delta + source, row < present);
    }
}

// Each thread turns the LSE that it copied itself into what is subtracted.
SPION_DEVICE void shift_statistics(unsigned statistics) {
#pragma unroll
    for (int i = 0; i < (kStreamedRows + kThreads - 1) / kThreads; ++i) {
        const int row = i * kThreads + (int)threadIdx.x;
        if (kStreamedRows % kThreads != 0 && row >= kStreamedRows) break;
        const float lse = load_shared_float(statistics + row * 4);
        store_shared_float(statistics + row * 4, probability_shift(lse));
    }
}

#endif
