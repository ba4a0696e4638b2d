// How long a kernel takes, predicted from its tile shape, its walk and the target's rates alone: no
// device, no code. Good enough to rank tile shapes; spion bench predicted shows how good.
//
// Four things bound a kernel: bytes from memory, bytes from the L2 cache, work inside processors
// (products, shared memory, exponentials, other instructions) and the latency of its work items,
// of which a processor has only so many at once. They overlap, but not perfectly:
//     seconds = launch + (memory^p + cache^p + compute^p + latency^p)^(1/p),   p = 2.5
// Every term grows with the pattern's blocks and with the batch, so the prediction does.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "compiler/walk_summary.h"
#include "ir/attention.h"
#include "ir/target.h"
#include "ir/tile_program.h"

namespace spion {

// What a processor holds at once of a kernel.
struct Residency {
    int columns = 0;    // streamed rows multiplied at once (codegen/cuda/register_plan.h)
    int registers = 0;  // a thread; 0 on the host
    bool held = true;   // stationary operands stay in registers
    bool gradients_apart = false;  // dV, then dK: the walk is gone through twice
    std::int64_t shared = 0;       // bytes of shared memory a thread block; 0 on the host
    int blocks = 1;                // thread blocks a processor; 0: not even one fits
    double occupancy = 0;          // resident threads of those that a processor could have
    std::string problem = {};  // why blocks == 0, where not only shared memory can be the reason
    friend bool operator==(const Residency&, const Residency&) = default;
};
Residency residency(const Attention& attention, KernelRole role, const TileShape& shape,
                    const Target& target, const Rates& rates);

// What bounds a kernel: the largest term.
enum class Bound {
    kMemory,
    kCache,
    kProducts,
    kSharedMemory,
    kExponentials,
    kInstructions,
    kLatency
};
// "memory", "L2", "products", "shared memory", "exponentials", "instructions", "latency".
std::string_view to_string(Bound bound);

struct Prediction {
    Residency residency;
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

// Of one launch for `batch` samples. Requires batch >= 1 and a residency of at least one block.
Prediction predict(const Attention& attention, KernelRole role, const TileShape& shape,
                   const WalkSummary& walk, std::int64_t batch, const Target& target,
                   const Rates& rates);
// Of a lowered program, with rates_of(target).
Prediction predict(const TileProgram& program, std::int64_t batch, const Target& target);

}  // namespace spion
