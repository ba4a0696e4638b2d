#include "codegen/cuda/families/warp_items.h"

#include <fmt/format.h>

#include <algorithm>

#include "codegen/cuda/families/gpu_tiles.h"
#include "codegen/cuda/warp_plan.h"

namespace spion {
namespace {

constexpr int kStreamedRows = 32;
constexpr int kMostStages = 4, kFewestStages = 2;
// How much of the work, of each role, does not hide behind the rest.
constexpr double kForwardShare = 0.9, kQueryGradientShare = 1.15, kKeyValueGradientShare = 1.4;
constexpr double kRampSeconds = 3.8e-6;
constexpr double kCacheShare = 0.8;
constexpr double kLongestShare = 0.5;  // of what the longest item would take beside others

bool multiplies(KernelRole /*role*/, MatrixUnit unit, DType /*dtype*/, const Target& target) {
    return unit == MatrixUnit::kMmaSyncTma && has_sm90_instructions(target);
}

// dK and dV keep the slopes of changed scores beside everything else, or where a head's biases lie.
std::string why_not_scores(const Attention& attention, KernelRole role) {
    if (role != KernelRole::kKeyValueGradient) {
        return "";
    }
    return attention.softcap > 0.0F || !attention.score.empty()
               ? "a warp has no registers for the slopes of softcap or a score expression in dK "
                 "and dV"
           : attention.relative_bias > 0 ? "a warp has no registers for relative_bias in dK and dV"
                                         : "";
}

std::string why_not(const KernelCase& launch) {
    if (std::string reason = why_not_item_walks(launch.attention, launch.role); !reason.empty()) {
        return "a warp a work item on sm_90a: " + reason;
    }
    if (std::string reason = why_not_scores(launch.attention, launch.role); !reason.empty()) {
        return reason;
    }
    if (has_sm90_instructions(launch.target) && storage_bytes(launch.attention.dtype) == 2 &&
        has_warp_plan(launch.role, tma_tile_width(launch.attention), launch.block)) {
        return "";
    }
    return fmt::format(
        "kernels with a work item a warp take bf16 or fp16 on sm_90a, D and Dv of at most 64, one "
        "of them above 16 (dK and dV: above 32), and blocks of 32 (forward: or 16), not {} on {} "
        "with D={}, Dv={} and blocks of {}",
        to_string(launch.attention.dtype), launch.target.arch, launch.attention.head_dim,
        launch.attention.value_head_dim(), launch.block);
}

TileShape shape_with(int block, int stages) {
    return {.stationary_rows = block,
            .streamed_rows = kStreamedRows,
            .gather_rows = block,
            .warps = 1,
            .stages = stages,
            .unit = MatrixUnit::kMmaSyncTma};
}

std::vector<TileShape> shapes(const KernelCase& launch) {
    std::vector<TileShape> shapes;
    for (int stages = kMostStages; stages >= kFewestStages; --stages) {
        shapes.push_back(shape_with(launch.block, stages));
    }
    return shapes;
}

std::optional<TileShape> measured(const KernelCase& launch) {
    return shape_with(launch.block, launch.role == KernelRole::kForward ? 3 : 2);
}

KernelPlan plan(const KernelCase& launch, const TileShape& shape) {
    ScoreNeeds needs = score_needs(launch.attention, launch.role, false, shape.streamed_rows);
    // Found by compiling: dropout's random numbers, and, for the tiles whose registers do not move, where
    // a sequence begins and ends.
    needs.registers += launch.attention.dropout > 0.0F ? 8 : 0;
    needs.registers += launch.attention.varlen && tma_tile_width(launch.attention) == 32 ? 8 : 0;
    const WarpPlan warps =
        plan_warps(launch.role, tma_tile_width(launch.attention), shape.stationary_rows,
                   shape.streamed_rows, shape.stages, launch.target.shared_bytes_per_block, needs);
    return {.problem = warps.problem.empty()
                           ? why_not_nvrtc(launch.attention, launch.role,
                                           tma_tile_width(launch.attention), shape, launch.target)
                           : warps.problem,
            .columns = warps.columns,
            .held_operands = warps.held_operands,
            .registers = warps.consumer_registers,
            .producer_registers = warps.producer_registers,
            .launch_bound = warps.resident_blocks,
            .shared_bytes = warps.shared_bytes,
            .blocks = warps.resident_blocks,
            .occupancy = static_cast<double>(warps.resident_blocks * warps.threads) /
                         launch.rates.resident_threads,
            .geometry = {.threads = warps.threads,
                         .shared_bytes = warps.shared_bytes,
                         .resident_blocks = warps.resident_blocks,
                         .items_at_once = warps.consumers,
                         .tile_width = tma_tile_width(launch.attention)}};
}

std::string why_not_program(const TileProgram& program, const Target& target) {
    if (std::string reason = why_not_gather_blocks(program); !reason.empty()) {
        return reason;
    }
    const Attention& attention = program.attention;
    std::string reason = why_not_item_walks(attention, program.role);
    if (reason.empty()) reason = why_not_scores(attention, program.role);
    if (!reason.empty()) {
        return reason + ": take unit=mma_sync";
    }
    const bool fits =
        program.warps == 1 && storage_bytes(attention.dtype) == 2 &&
        has_warp_plan(program.role, tma_tile_width(attention), program.stationary_rows) &&
        program.packed_rows() == 1 && program.gather_rows <= kStreamedRows &&
        program.streamed_rows % kStreamedRows == 0 && program.stages >= kFewestStages;
    if (!fits) {
        return fmt::format(
            "mma_sync_tma kernels take bf16 or fp16 on sm_90a, D and Dv of at most 64, one of them "
            "above 16 (dK and dV: above 32), stationary_rows of 32 (forward: or 16), a gather "
            "block "
            "of 32 at most, streamed_rows in multiples of 32 and 2 stages or more, not {} on {} "
            "with role={} D={} Dv={} stationary_rows={} gather_rows={} streamed_rows={} stages={}: "
            "take unit=mma_sync",
            to_string(attention.dtype), target.arch, to_string(program.role), attention.head_dim,
            attention.value_head_dim(), program.stationary_rows, program.gather_rows,
            program.streamed_rows, program.stages);
    }
    const std::string refused = why_not_nvrtc(program, tma_tile_width(attention), target);
    return refused.empty() ? why_not_planned(plan, program, target) : refused;
}

// A streamed row is read from shared memory once for all rows of an item. The products of 16 rows
// wait for each other as long as those of 32 take.
SmTime time(const KernelLoad& load) {
    const Rates& rates = load.rates;
    const TileShape& shape = load.shape;
    const double elements = std::max(32.0, 1.0 * shape.stationary_rows) * load.plan.columns;
    const double products =
        2 * load.work.products * elements * mma_tile_width(load.attention) / rates.tensor16_flop;
    const double left =
        load.plan.held_operands > 0 ? 0 : load.work.stationary_left * shape.stationary_rows;
    const double shared = (load.work.products * load.plan.columns + left) *
                          static_cast<double>(row_bytes(load.attention)) / rates.shared_bytes;
    const double exponentials = elements / rates.exponentials;
    const double instructions = elements * kScoreInstructions / kGpuIssue;
    const double share = load.role == KernelRole::kForward         ? kForwardShare
                         : load.role == KernelRole::kQueryGradient ? kQueryGradientShare
                                                                   : kKeyValueGradientShare;
    const double clocks = (std::max(products, shared) + exponentials + instructions) * share;
    const double longest = static_cast<double>(load.walk.longest_mma_iterations) * clocks *
                           load.plan.blocks * load.plan.geometry.items_at_once;
    return {.compute_seconds = load.batch_heads * static_cast<double>(load.walk.mma_iterations) *
                               clocks / (rates.clock * load.target.sm_count),
            .latency_seconds = kLongestShare * longest / rates.clock,
            .ramp_seconds = kRampSeconds,
            .cache_share = kCacheShare,
            .bound = largest(products, shared, exponentials, instructions)};
}

std::string body(KernelRole role, const KernelPlan& /*plan*/) {
    return fmt::format("sm90/warp_{}", to_string(role));
}

std::vector<Constant> constants(const TileProgram& program, const KernelPlan& plan) {
    return {integer("kColumns", plan.columns, "of S at once"),
            integer("kHeldOperands", plan.held_operands, "stationary, in registers throughout"),
            integer("kWarps", plan.geometry.items_at_once, "that compute, an item each"),
            integer("kStages", program.stages, "a warp's streamed tiles in shared memory at once"),
            integer("kResidentBlocks", plan.launch_bound, "on an SM"),
            integer("kConsumerRegisters", plan.registers, "a thread"),
            integer("kProducerRegisters", plan.producer_registers, "a thread; 0: as many"),
            integer("kSharedBytes", plan.geometry.shared_bytes, "of a thread block")};
}

}  // namespace

const KernelFamily kWarpItems{.name = "a warp a work item on sm_90a",
                              .mark = "warp",
                              .computes = computes_split_backward,
                              .multiplies = multiplies,
                              .why_not = why_not,
                              .shapes = shapes,
                              .measured = measured,
                              .measured_on_many_items = true,
                              .most_packed_rows = one_block_row,
                              .packing_can_pay = false,
                              .packed_shapes = no_packed_shapes,
                              .packing_overhead = no_packing_overhead,
                              .why_not_program = why_not_program,
                              .plan = plan,
                              .time = time,
                              .body = body,
                              .constants = constants};

}  // namespace spion
