// How long a kernel takes, predicted from its tile shape, its walk and the target's rates alone: no
// device, no code. Good enough to rank tile shapes; spion bench predicted shows how good.
//
// Four things bound a kernel: bytes from memory, bytes from the L2 cache, work inside the SMs
// (products, shared memory, exponentials, other instructions) and the latency of its work items, of
// which an SM has only so many at once. They overlap, but not perfectly:
//     seconds = launch + ramp + packing (memory^p + cache^p + compute^p + latency^p)^(1/p),  p = 2.5
// where launch is what a launch costs, ramp what passes before the first tiles have arrived and after
// the last, and packing 1, or what packed tiles take more. Compute, latency, ramp and packing are the
// kernel family's (codegen/kernel_family.h). Every term grows with the pattern's blocks and with the
// batch, so the prediction does.
#pragma once

#include <cstdint>

#include "codegen/kernel_cost.h"
#include "codegen/kernel_family.h"
#include "ir/target.h"
#include "ir/tile_program.h"

namespace spion {

struct Prediction {
    double waves = 0;           // work items over what the device runs at once
    double memory_bytes = 0;    // from and to device memory
    double cache_bytes = 0;     // from and to the L2 cache
    double flop = 0;            // of matrix products, padding included
    double exponentials = 0;    // padding included
    double memory_seconds = 0;  // the four terms
    double cache_seconds = 0;
    double compute_seconds = 0;
    double latency_seconds = 0;
    double seconds = 0;
    Bound bound = Bound::kMemory;
};

// Of one launch for `batch` samples. `plan` is the family's for the shape. Requires batch >= 1 and a
// plan of at least one thread block.
Prediction predict(const KernelCase& launch, const KernelFamily& family, const TileShape& shape,
                   const KernelPlan& plan, const WalkSummary& walk, std::int64_t batch);
// The prediction for a program as it is emitted for the target.
Prediction predict(const TileProgram& program, const PlannedKernel& kernel, std::int64_t batch,
                   const Target& target);
// The prediction for a program without a plan. Throws as plan_kernel does.
Prediction predict(const TileProgram& program, std::int64_t batch, const Target& target);

}  // namespace spion
