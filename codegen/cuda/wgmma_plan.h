// How an attention kernel for sm_90a divides an SM's registers and shared memory
// (kernels/cuda/sm90/wgmma_pipeline.cuh).
#pragma once

#include <string>

#include "codegen/cuda/score_needs.h"
#include "ir/target.h"
#include "ir/tile_program.h"

namespace spion {

struct WgmmaPlan {
    int stationary_stages = 1;    // stationary tiles in shared memory at once
    int resident_blocks = 0;      // on an SM; 0: not even one
    int producer_registers = 24;  // a thread of the warpgroup that fetches
    int consumer_registers = 0;   // a thread of those that multiply
    int threads = 0;              // of a block
    int shared_bytes = 0;         // of a block
    std::string problem = {};     // why there is no block, or empty
    friend bool operator==(const WgmmaPlan&, const WgmmaPlan&) = default;
};

// The head dimensions that the bodies are made for.
bool is_wgmma_head_dim(int head_dim);

// `compiler` makes the kernel. `shared_limit`: bytes that a block may have. stationary_rows is a
// multiple of 64, and 64 for packed tiles, streamed_rows 64 or 128, stages at least 2, head_dim one
// of is_wgmma_head_dim; elements have 2 bytes.
WgmmaPlan plan_wgmma(KernelRole role, int head_dim, int stationary_rows, int streamed_rows,
                     int stages, int shared_limit, const CompilerRelease& compiler,
                     bool packed = false, const ScoreNeeds& needs = {});

}  // namespace spion
