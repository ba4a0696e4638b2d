#include "codegen/cuda/warp_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "codegen/cuda/sm_limits.h"
#include "codegen/kernel_cost.h"
#include "ir/error.h"

namespace spion {
namespace {

constexpr int kMostRegisters = 240;  // a thread, where registers move

// What was fastest on an H200 of what compiles without spills. Small blocks win: a producer is
// quick to come round to few consumers. With producer_registers == 0 a lone warp produces, else a
// warpgroup, which leaves the consumers its registers.
struct Measured {
    KernelRole role;
    int head_dim;
    int fewest_rows;  // stationary
    int columns;
    int held_operands;
    int consumers;
    int resident_blocks;
    int producer_registers;
};

constexpr Measured kMeasured[] = {{KernelRole::kForward, 32, 16, 32, 1, 3, 4, 0},
                                  {KernelRole::kForward, 64, 16, 32, 1, 4, 2, 56},
                                  {KernelRole::kQueryGradient, 32, 32, 16, 2, 3, 4, 0},
                                  {KernelRole::kQueryGradient, 64, 32, 32, 1, 4, 2, 40},
                                  {KernelRole::kKeyValueGradient, 64, 32, 16, 0, 4, 2, 40}};

const Measured* measured(KernelRole role, int head_dim, int stationary_rows) {
    const auto* found =
        std::find_if(std::begin(kMeasured), std::end(kMeasured), [&](const Measured& row) {
            return row.role == role && row.head_dim == head_dim &&
                   (stationary_rows == 32 || stationary_rows == row.fewest_rows);
        });
    return found == std::end(kMeasured) ? nullptr : found;
}

// With a few registers more a thread, as far as compiling has shown that they are missed.
Measured with_room(Measured row, const ScoreNeeds& needs) {
    constexpr int kFewColumns = 16;
    row.resident_blocks = std::min(row.resident_blocks, needs.bias_sums ? 2 : 3);
    if (row.role == KernelRole::kQueryGradient) {
        row.columns = kFewColumns;
    }
    return row;
}

int shared_bytes(KernelRole role, int head_dim, int stationary_rows, int streamed_rows, int stages,
                 int consumers, bool positions) {
    const int row = 2 * head_dim, plan = positions ? 32 : 16;
    constexpr int kFloat = 4, kBarriers = 16;
    int stationary_stage = work_of(role).loaded * stationary_rows * row + plan + kBarriers;
    int stage = 2 * streamed_rows * row + kBarriers;
    if (role == KernelRole::kQueryGradient) {
        stationary_stage += stationary_rows * kFloat;
    } else if (role == KernelRole::kKeyValueGradient) {
        stage += 2 * streamed_rows * kFloat;
    }
    return consumers * (stationary_stage + stages * stage);
}

}  // namespace

bool has_warp_plan(KernelRole role, int head_dim, int stationary_rows) {
    return measured(role, head_dim, stationary_rows) != nullptr;
}

WarpPlan plan_warps(KernelRole role, int head_dim, int stationary_rows, int streamed_rows,
                    int stages, int shared_limit, const ScoreNeeds& needs) {
    const Measured* const found = measured(role, head_dim, stationary_rows);
    if (found == nullptr) {
        throw InternalError("{} has no warp plan for D={} and {} rows", to_string(role), head_dim,
                            stationary_rows);
    }
    Measured best = *found;
    if (needs.registers > 0) {
        best = with_room(best, needs);
    }
    const bool move = best.producer_registers > 0;
    WarpPlan plan{.columns = best.columns,
                  .held_operands = best.held_operands,
                  .consumers = best.consumers,
                  .producer_registers = best.producer_registers,
                  .threads = 32 * (best.consumers + (move ? 4 : 1)),
                  .shared_bytes = shared_bytes(role, head_dim, stationary_rows, streamed_rows,
                                               stages, best.consumers, needs.positions)};
    if (plan.shared_bytes > shared_limit) {
        plan.problem =
            fmt::format("shared memory: {} bytes of {}", plan.shared_bytes, shared_limit);
        return plan;
    }
    plan.resident_blocks =
        std::min(best.resident_blocks, kSharedBytesOfSm90 / (plan.shared_bytes + kReservedShared));
    // Registers come in units of 8 a thread.
    const int even = std::min(248, kRegistersOfSm / (plan.threads * plan.resident_blocks) / 8 * 8);
    const int kept = even * plan.threads - 128 * best.producer_registers;
    plan.consumer_registers =
        move ? std::min(kMostRegisters, kept / (32 * best.consumers) / 8 * 8) : even;
    return plan;
}

}  // namespace spion
