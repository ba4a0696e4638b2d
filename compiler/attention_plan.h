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

#include "compiler/launch/jit_kernel.h"
#include "compiler/launch/kernel_launch.h"
#include "compiler/launch/walk_tables.h"
#include "compiler/lower.h"
#include "compiler/plan/layer_plan.h"
#include "ir/attention.h"
#include "ir/head_patterns.h"
#include "ir/target.h"

namespace spion {

// The number of the tables' layout.
constexpr std::int32_t kTableLayout = 2;

struct PlanRequest {
    Attention attention;
    int block = 64;
    std::optional<HeadPatterns> typical = {};  // nothing: sparse ones, diagonals
    std::int64_t max_blocks = 0;               // of all patterns of a layer; 0: all of them
    std::int64_t batch = kPlannedBatch;        // B that is usual
};

// Throws UserError when the request contradicts itself or the operation is not there.
void check(const PlanRequest& request);

// Throws UserError for a dtype that the target does not compute in.
void check_dtype(const Attention& attention, const Target& target);

// What the programs of plan_programs walk.
HeadPatterns typical_pattern(const PlanRequest& request);

// What is decided about the layer's kernels, for the typical pattern. Needs no device; throws as
// check and plan_layer do.
LayerPlan plan_of(const PlanRequest& request, const Target& target);
// Its three programs, walking the typical pattern. Gather blocks are not longer than blocks, so
// that every pattern can be walked.
LayerPrograms plan_programs(const PlanRequest& request, const Target& target);
// The kernels of a plan: those of its programs, where the attention has sinks or a bias by relative
// position the one of their gradient, and where it has dropout the one that moves it on.
std::vector<KernelSource> plan_sources(const PlanRequest& request, const LayerPrograms& programs,
                                       const Target& target);

enum class PlanPass { kForward, kBackward };

// The numbers at the start of a plan's tables: whose they are, and the pattern's work hints.
constexpr std::size_t kTableHead = 16;
using TableHead = std::span<const std::int32_t, kTableHead>;
// Sequences whose patterns the tables have; of a plan with sequence_patterns.
std::int64_t sequences_of_tables(TableHead head);

// Memory of a call, from its start: zeros first.
struct WorkspaceLayout {
    static constexpr std::size_t kAlignment = 256;
    std::array<LaunchBytes, 3> of_launch = {};  // by launch_of
    std::array<std::size_t, 3> counters = {}, dq_semaphore = {};
    std::size_t zeros = 0;      // bytes that calls expect to be zero and leave so
    std::size_t rows = 0;       // [B, H, L] fp32: LSE nobody wants, or delta
    std::size_t dq_accum = 0;   // of the launch that has any
    std::size_t bias_sums = 0;  // of a bias by relative position (compiler/launch/bias_gradient.h)
    std::size_t forward_bytes = 0, backward_bytes = 0;
};

// What a call brings besides tensors.
struct PlanCall {
    const std::int32_t* tables = nullptr;  // table_bytes, on the device
    std::optional<TableHead> head = {};    // theirs, on the host; nothing: not known
    void* workspace = nullptr;             // as laid out
    // No kernel that may still be running writes tables or lengths.
    bool tables_settled = false;
};

class AttentionPlan {
  public:
    // programs: as plan_programs gives them; kernels: of plan_sources.
    AttentionPlan(PlanRequest request, LayerPrograms programs, std::vector<JitKernel> kernels,
                  const Device& device);

    const PlanRequest& request() const { return request_; }
    const std::vector<JitKernel>& kernels() const { return kernels_; }
    const LayerPrograms& programs() const { return programs_; }
    std::int64_t max_blocks() const { return max_blocks_; }

    std::size_t table_bytes() const { return static_cast<std::size_t>(table_numbers_) * 4; }
    // With sequence_patterns of as many sequences as patterns are given for, at most that. Throws
    // UserError for patterns of other lengths, block or number, or with more than max_blocks.
    void write_tables(const HeadPatterns& patterns, std::span<std::int32_t> numbers) const;
    // Why tables with this head cannot be of this plan, as a clause; "" when they can.
    std::string problem_with_tables(TableHead head) const;

    WorkspaceLayout workspace(std::int64_t batch) const;

    // args: tensors, batch and what else the operation reads; lse null where nobody wants it. In the
    // backward pass dO and gradients too; those of the sinks and of a bias by relative position are
    // left out where d_sinks and d_relative_bias, [H, 2R + 1] alone, are null. The order of work is
    // made for the pattern of the head, where that is known, else for the typical one. Allocates nothing and waits for nothing. Throws as
    // KernelLaunch::prepare and Device::launch_on do, the former before anything is launched.
    void run(PlanPass pass, SpionAttentionArguments args, const PlanCall& call,
             const Device& device, ForeignStream stream) const;

    // Adds `by` to the offset of a state where the tensors are. Of a plan with dropout.
    void advance_dropout(SpionDropoutState* state, unsigned by, const Device& device,
                         ForeignStream stream) const;

  private:
    // Behind the programs' kernels; the last is that of advance_dropout, of a plan with dropout.
    const JitKernel& sink_gradient() const { return kernels_[programs_.size()]; }
    const JitKernel& bias_gradient() const {
        return kernels_[programs_.size() + (request_.attention.sink ? 1 : 0)];
    }
    // What follows the programs' kernels in the backward pass. args: as those had them; the gradients
    // are written where the caller wants them.
    void run_score_gradients(const SpionAttentionArguments& args, float* d_relative_bias,
                             const Device& device, ForeignStream stream) const;
    WorkHints hints_of(std::size_t launch, const std::optional<TableHead>& head) const;

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
