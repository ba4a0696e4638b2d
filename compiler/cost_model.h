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
#include <vector>

#include "compiler/lower.h"
#include "ir/attention.h"
#include "ir/block_pattern.h"
#include "ir/target.h"
#include "ir/tile_program.h"

namespace spion {

// What a shape makes of a pattern: sums over the work items of one (batch, head).
struct WalkSummary {
    std::int64_t items = 0;           // stationary tiles
    std::int64_t streamed = 0;        // rows
    std::int64_t distinct = 0;        // rows that at least one work item streams
    std::int64_t steps = 0;           // of streamed_rows rows, the last of an item shorter
    std::int64_t later_steps = 0;     // beyond those whose copies start at once
    std::int64_t passes = 0;          // of `columns` rows multiplied at once
    std::int64_t longest_steps = 0;   // of one item
    std::int64_t longest_passes = 0;  // of one item
    friend bool operator==(const WalkSummary&, const WalkSummary&) = default;
};

// What a kernel's role makes of a pattern before a shape is known.
struct StreamedRows {
    std::vector<std::int64_t> stationary;  // [nb]: rows of the sequence in block row (column) i
    std::vector<std::int64_t> streamed;    // [nb]: rows that stream past it
    std::int64_t distinct = 0;             // rows that stream past any
};
StreamedRows streamed_rows(const BlockPattern& pattern, KernelRole role);

WalkSummary summarise(const StreamedRows& rows, const TileShape& shape, int columns);
TileShape shape_of(const TileProgram& program);
WalkSummary summarise(const TileProgram& program, int columns);

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
