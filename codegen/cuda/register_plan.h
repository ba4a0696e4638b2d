// How a CUDA attention kernel divides a thread's registers: what it holds in them at once.
#pragma once

#include "ir/dtype.h"
#include "ir/tile_program.h"

namespace spion {

struct RegisterPlan {
    int columns = 32;         // streamed rows multiplied at once: S has `columns` / 2 registers
    bool held = true;         // stationary operands in registers, not fetched at every use
    bool dv_then_dk = false;  // dV first, then dK: what streams past does so twice
    int registers = 128;      // of a thread, at most
    int resident_blocks = 1;  // thread blocks an SM has registers for: caps a thread's
    friend bool operator==(const RegisterPlan&, const RegisterPlan&) = default;
};

// No plan spills on any architecture (tests/codegen/cuda_compile_test.cpp). columns divides
// streamed_rows. What the operation does to elements takes registers too.
RegisterPlan plan_registers(KernelRole role, const Attention& attention, int streamed_rows,
                            int warps);
// The same for packed tiles, whose warps need a few registers more and multiply one gather block at
// most at once.
RegisterPlan plan_packed_registers(KernelRole role, const Attention& attention, int streamed_rows,
                                   int gather_rows, int warps);
// The same for the score summary, whose columns are its tile's.
RegisterPlan plan_summary_registers(DType dtype, int head_dim, int tile);

}  // namespace spion
