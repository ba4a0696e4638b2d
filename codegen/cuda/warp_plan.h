// How an attention kernel for sm_90a whose warps have work items of their own divides an SM
// (kernels/cuda/sm90/warp_pipeline.cuh).
#pragma once

#include <string>

#include "codegen/cuda/score_needs.h"
#include "ir/tile_program.h"

namespace spion {

struct WarpPlan {
    int columns = 32;         // streamed rows multiplied at once
    int held_operands = 0;    // stationary operands in registers; the others fetched at every use
    int consumers = 0;        // warps of a block that compute, each an item
    int resident_blocks = 0;  // on an SM; 0: not even one
    int producer_registers = 0;  // a thread; 0: every thread has as many
    int consumer_registers = 0;  // a thread
    int threads = 0;             // of a block
    int shared_bytes = 0;        // of a block
    std::string problem = {};    // why there is no block, or empty
    friend bool operator==(const WarpPlan&, const WarpPlan&) = default;
};

// Whether a warp of its own is made for this: head dimensions of 32 and 64 and stationary tiles of
// 32 rows, which were seen to be faster so; of 16 rows going forward only, and no dK and dV at
// D = 32, where thread blocks of one item are as fast or faster.
bool has_warp_plan(KernelRole role, int head_dim, int stationary_rows);

// `shared_limit`: bytes that a block may have. streamed_rows is a multiple of 32, stages at least
// 2, and has_warp_plan holds; elements have 2 bytes.
WarpPlan plan_warps(KernelRole role, int head_dim, int stationary_rows, int streamed_rows,
                    int stages, int shared_limit, const ScoreNeeds& needs = {});

}  // namespace spion
