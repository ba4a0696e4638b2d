// What a kernel has to do, and how long its thread blocks take for it: the part of a prediction that
// a kernel family knows (codegen/kernel_family.h). The rest is compiler/plan/cost_model.h.
#pragma once

#include <cstdint>
#include <string_view>

#include "codegen/kernel_plan.h"
#include "ir/attention.h"
#include "ir/target.h"
#include "ir/tile_program.h"

namespace spion {

// What a kernel's role asks for, whatever computes it.
struct RoleWork {
    double products;         // matrix products over the elements
    double stationary_left;  // of them with a stationary operand
    int loaded;              // stationary tensors [L, D] read
    int stored;              // stationary tensors [L, D] written
    int streamed;            // streamed tensors [L, D] read
    int statistics;          // floats a row read and written beside: LSE, delta
};
RoleWork work_of(KernelRole role);

// Elements of a row on average: as many tensors and products have D as have Dv.
constexpr double mean_head_dim(const Attention& attention) {
    return (attention.head_dim + attention.value_head_dim()) / 2.0;
}

// What a shape makes of a pattern: sums over the work items of one (batch, head), or of `heads`.
struct WalkSummary {
    std::int64_t heads = 1;           // where they have patterns of their own, summed over them
    std::int64_t items = 0;           // stationary tiles
    std::int64_t streamed = 0;        // rows
    std::int64_t distinct = 0;        // rows that at least one work item streams
    std::int64_t steps = 0;           // of streamed_rows rows, the last of an item shorter
    std::int64_t later_steps = 0;     // beyond those whose copies start at once
    std::int64_t mma_iterations = 0;  // of `columns` rows multiplied at once
    std::int64_t multiplied = 0;      // stationary rows that take part, summed over the passes
    std::int64_t longest_steps = 0;   // of one item
    std::int64_t longest_mma_iterations = 0;  // of one item
    friend bool operator==(const WalkSummary&, const WalkSummary&) = default;
};

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

// One launch for B samples.
struct KernelLoad {
    const Attention& attention;
    KernelRole role;
    const TileShape& shape;
    const KernelPlan& plan;
    const Target& target;
    const Rates& rates;
    RoleWork work;
    WalkSummary walk;
    double batch_heads;  // B * H, over the heads that `walk` sums
    double row_bytes;    // of a head: D or Dv elements, on average
    // Bytes that go to and from the L2 cache beside tensors and statistics, of all work items.
    double more_cache_bytes = 0;

    double mean_rows() const {  // that stream past a work item
        return static_cast<double>(walk.streamed) / static_cast<double>(walk.items);
    }
};

// What a launch takes inside the SMs.
struct SmTime {
    double compute_seconds = 0;  // work of the SMs' units
    double latency_seconds = 0;  // of work items one after the other
    double ramp_seconds = 0;     // before the first tiles have arrived and after the last
    double cache_share = 1;      // of the time of reads from L2, what does not hide behind the work
    Bound bound = Bound::kProducts;  // of the compute term
};

// The bound that takes the largest part of an MMA iteration.
Bound largest(double products, double shared, double exponentials, double instructions);

// Constants of the H200 that the model was calibrated on.
constexpr double kFetchSeconds = 0.5e-6;  // a copy from the L2 cache under load
constexpr double kScoreInstructions = 4;  // an element of S, but for its exponential
constexpr double kGpuIssue = 128;         // instructions of a lane a clock and SM

}  // namespace spion
