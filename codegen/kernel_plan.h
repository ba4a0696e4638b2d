// How a kernel divides an SM: decided once for a tile shape (codegen/kernel_family.h), then read by
// the cost model, the emitter, the loader, the launch and the report.
#pragma once

#include <cstdint>
#include <string>

namespace spion {

// What a launch needs besides the tables: threads of a thread block and its dynamic shared memory.
struct EmittedGeometry {
    int threads = 1;
    int shared_bytes = 0;
    // 0: a thread block a work item. Else persistent thread blocks take work items from a counter
    // until there are no more (kernels/sm90_arguments.h), and an SM holds this many at once.
    int resident_blocks = 0;
    int items_at_once = 1;  // of a persistent thread block
    int tile_width = 0;     // columns of a tile in shared memory: D and Dv, padded; 0: D
    friend bool operator==(const EmittedGeometry&, const EmittedGeometry&) = default;
};

struct KernelPlan {
    std::string problem = {};  // why it cannot run, as not even one thread block fits; or empty
    // Registers of a thread.
    int columns = 0;        // streamed rows multiplied at once
    int held_operands = 0;  // stationary operands that stay in registers; others are fetched at use
    bool dv_then_dk = false;     // dV, then dK: the walk is gone through twice
    int registers = 0;           // of a thread that multiplies, at most; 0 on the host
    int producer_registers = 0;  // of a thread that only fetches; 0: there is none, or as many
    int launch_bound = 1;        // thread blocks an SM that the compiler is told to allow for
    // Shared memory.
    std::int64_t shared_bytes = 0;  // of a thread block; 0 on the host
    int stationary_stages = 1;      // stationary tiles in shared memory at once
    // What an SM holds.
    int blocks = 1;        // thread blocks at once; 0: not even one fits
    double occupancy = 0;  // their threads, of those that an SM could have
    EmittedGeometry geometry = {};
    friend bool operator==(const KernelPlan&, const KernelPlan&) = default;
};

}  // namespace spion
