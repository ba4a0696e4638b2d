#include "codegen/cuda/warp_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "ir/error.h"

namespace spion {
namespace {

constexpr int kRegisters = 65536;         // of a processor
constexpr int kSharedBytes = 228 * 1024;  // of a processor
constexpr int kReservedShared = 1024;     // a block, by the driver
constexpr int kMostRegisters = 240;       // a thread, where registers move

// What was fastest on an H200 of what compiles without spills. Small blocks win: a producer is
// quick to come round to few consumers. With producer_registers == 0 a lone warp produces, else a
// warpgroup, which leaves the consumers its registers.
struct Measured {
    int head_dim;
    int columns;
    int held_operands;
    int consumers;
    int resident_blocks;
    int producer_registers;
};

constexpr std::array kForward = {Measured{32, 32, 1, 3, 4, 0}, Measured{64, 32, 1, 4, 2, 56}};
constexpr std::array kQueryGradient = {Measured{32, 16, 2, 3, 4, 0}, Measured{64, 32, 1, 4, 2, 40}};
constexpr std::array kKeyValueGradient = {Measured{32, 32, 2, 4, 2, 56},
                                          Measured{64, 16, 0, 4, 2, 40}};

Measured measured(KernelRole role, int head_dim) {
    const auto& rows = role == KernelRole::kForward         ? kForward
                       : role == KernelRole::kQueryGradient ? kQueryGradient
                                                            : kKeyValueGradient;
    return rows[head_dim == 32 ? 0 : 1];
}

int shared_bytes(KernelRole role, int head_dim, int stationary_rows, int streamed_rows, int stages,
                 int consumers) {
    const int row = 2 * head_dim;
    constexpr int kFloat = 4, kPlan = 16, kBarriers = 16;
    const int stationary_tensors = role == KernelRole::kForward         ? 1
                                   : role == KernelRole::kQueryGradient ? 3
                                                                        : 2;
    int slot = stationary_tensors * stationary_rows * row + kPlan + kBarriers;
    int stage = 2 * streamed_rows * row + kBarriers;
    if (role == KernelRole::kQueryGradient) {
        slot += stationary_rows * kFloat;
    } else if (role == KernelRole::kKeyValueGradient) {
        stage += 2 * streamed_rows * kFloat;
    }
    return consumers * (slot + stages * stage);
}

}  // namespace

bool warp_tile(int head_dim, int stationary_rows) {
    return (head_dim == 32 || head_dim == 64) && (stationary_rows == 16 || stationary_rows == 32);
}

WarpPlan plan_warps(KernelRole role, int head_dim, int stationary_rows, int streamed_rows,
                    int stages, int shared_limit) {
    const Measured best = measured(role, head_dim);
    const bool move = best.producer_registers > 0;
    WarpPlan plan{.columns = best.columns,
                  .held_operands = best.held_operands,
                  .consumers = best.consumers,
                  .producer_registers = best.producer_registers,
                  .threads = 32 * (best.consumers + (move ? 4 : 1)),
                  .shared_bytes = shared_bytes(role, head_dim, stationary_rows, streamed_rows,
                                               stages, best.consumers)};
    if (plan.shared_bytes > shared_limit) {
        plan.problem =
            fmt::format("shared memory: {} bytes of {}", plan.shared_bytes, shared_limit);
        return plan;
    }
    plan.resident_blocks =
        std::min(best.resident_blocks, kSharedBytes / (plan.shared_bytes + kReservedShared));
    // Registers come in units of 8 a thread.
    const int even = std::min(248, kRegisters / (plan.threads * plan.resident_blocks) / 8 * 8);
    const int kept = even * plan.threads - 128 * best.producer_registers;
    plan.consumer_registers =
        move ? std::min(kMostRegisters, kept / (32 * best.consumers) / 8 * 8) : even;
    return plan;
}

}  // namespace spion
