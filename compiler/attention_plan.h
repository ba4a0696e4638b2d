// One layer's kernels for every pattern of its length and block: compiled once, immutable, launched
// on the caller's memory and stream by any number of threads.
//     attention, typical pattern --plan_of--> programs --compile--> AttentionPlan
//     pattern --write_tables--> numbers that the caller puts where the tensors are
// Tile shapes, packing and the way of the backward pass are the plan's, weighed for the typical
// pattern; another pattern changes only the tables.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "compiler/compile.h"
#include "compiler/kernel_launch.h"
#include "compiler/lower.h"
#include "compiler/plan/layer_plan.h"
#include "compiler/walk_tables.h"
#include "ir/attention.h"
#include "ir/block_pattern.h"
#include "ir/target.h"

namespace spion {

// Of the tables' block; another number means another layout.
constexpr std::int32_t kTableLayout = 1;

struct PlanRequest {
    Attention attention;
    int block = 64;
    std::optional<BlockPattern> typical = {};  // nothing: a sparse one, the diagonal
    std::int64_t max_blocks = 0;               // of any pattern; 0: all of them
    std::int64_t batch = kPlannedBatch;        // B that is usual
};

// Throws UserError when the request contradicts itself or the operation is not there.
void check(const PlanRequest& request);

// Throws UserError for a dtype that the target does not compute in.
void check_dtype(const Attention& attention, const Target& target);

// What the programs of plan_programs walk.
BlockPattern typical_pattern(const PlanRequest& request);

// What is decided about the layer's kernels, for the typical pattern. Needs no device; throws as
// check and plan_layer do.
LayerPlan plan_of(const PlanRequest& request, const Target& target);
// Its three programs, walking the typical pattern. Gather blocks are not longer than blocks, so
// that every pattern can be walked.
LayerPrograms plan_programs(const PlanRequest& request, const Target& target);

enum class PlanPass { kForward, kBackward };

// Memory of a call, from its start: zeros first.
struct WorkspaceLayout {
    static constexpr std::size_t kAlignment = 256;
    std::array<LaunchBytes, 3> of_launch = {};  // by launch_of
    std::array<std::size_t, 3> counters = {}, dq_semaphore = {};
    std::size_t zeros = 0;     // bytes that calls expect to be zero and leave so
    std::size_t rows = 0;      // [B, H, L] fp32: LSE nobody wants, or delta
    std::size_t dq_accum = 0;  // of the launch that has any
    std::size_t forward_bytes = 0, backward_bytes = 0;
};

class AttentionPlan {
  public:
    // programs: as plan_programs gives them; kernels: of each.
    AttentionPlan(PlanRequest request, LayerPrograms programs, std::vector<JitKernel> kernels,
                  const Device& device);

    const PlanRequest& request() const { return request_; }
    const std::vector<JitKernel>& kernels() const { return kernels_; }
    const LayerPrograms& programs() const { return programs_; }
    std::int64_t max_blocks() const { return max_blocks_; }

    std::size_t table_bytes() const { return static_cast<std::size_t>(table_numbers_) * 4; }
    // Throws UserError for a pattern of another length or block, or with more than max_blocks.
    void write_tables(const BlockPattern& pattern, std::span<std::int32_t> numbers) const;
    // Why the numbers cannot be tables of this plan, as a clause; "" when they can. Reads the head.
    std::string problem_with_tables(const std::int32_t* numbers) const;

    WorkspaceLayout workspace(std::int64_t batch) const;

    // args: tensors, lengths and batch; lse null where nobody wants it. Forward of dO and gradients
    // too in the backward pass. tables: table_bytes on the device; workspace: as laid out.
    // overlap: kernels may start while the one before them on the stream ends. Allocates nothing
    // and waits for nothing. Throws as KernelLaunch::prepare and Device::launch_on do, the former
    // before anything is launched.
    void run(PlanPass pass, SpionAttentionArguments args, const std::int32_t* tables,
             void* workspace, bool overlap, const Device& device, ForeignStream stream) const;

  private:
    static constexpr std::int64_t kHead = 16;  // numbers

    PlanRequest request_;
    LayerPrograms programs_;  // walking the typical pattern
    std::vector<JitKernel> kernels_;
    Target target_;
    std::int64_t max_blocks_ = 0, table_numbers_ = 0;
    std::array<KernelLaunch, 3> launches_;
    std::array<WorkHints, 3> hints_;
    std::array<WalkTables, 3> tables_;
    std::array<std::int64_t, 3> table_starts_ = {};
    std::int32_t fingerprint_[2] = {};
};

// Chooses, emits, compiles (or finds) and loads. Throws what these throw.
AttentionPlan make_plan(const PlanRequest& request, Device& device, KernelCache& cache);

// For people: kernels with shapes and origin, and why the backward pass goes its way.
std::string to_text(const AttentionPlan& plan, const Target& target);

}  // namespace spion
