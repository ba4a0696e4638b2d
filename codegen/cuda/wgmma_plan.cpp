#include "codegen/cuda/wgmma_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "codegen/cuda/sm_limits.h"
#include "codegen/kernel_cost.h"
#include "ir/error.h"
#include "ir/nvrtc_rules.h"

namespace spion {
namespace {

constexpr int kMostResident = 8;
constexpr int kMostRegisters = 240;  // a thread, with another warpgroup beside it
constexpr int kGroupThreads = 128;

int round_down(int value, int unit) {
    return value / unit * unit;
}

int shared_bytes(KernelRole role, int head_dim, int stationary_rows, int streamed_rows, int stages,
                 int stationary_stages, bool packed, const ScoreNeeds& needs) {
    const int row = 2 * head_dim;
    const bool gradients = role == KernelRole::kGradients;
    const int plan = needs.elements_apart ? 48 : packed || needs.positions || gradients ? 32 : 16;
    const int block_row_masks = packed ? 8 : 0;
    constexpr int kFloat = 4, kBarrier = 8;
    int stationary_stage = work_of(role).loaded * stationary_rows * row + plan + 2 * kBarrier;
    int stage = 2 * streamed_rows * row + block_row_masks + 4 * kBarrier;
    if (role == KernelRole::kQueryGradient) {
        stationary_stage += stationary_rows * kFloat;
    } else if (walks_columns(role)) {
        stage += 2 * streamed_rows * kFloat;
    }
    int exchange = 0;
    if (role == KernelRole::kGradients) {
        // dS of both warpgroups, once at D = 64 and twice at 128; two partial dQs; barriers.
        constexpr int kDqAcc = 64 * 64 * kFloat;
        const int buffers = streamed_rows == 128 ? 1 : 2;
        exchange = 2 * buffers * 64 * streamed_rows * 2 + 4 * kDqAcc + 9 * kBarrier;
    }
    return stationary_stages * stationary_stage + stages * stage + exchange;
}

// What a consumer thread keeps: S as fp32 and P of two steps as operands going forward; S and dP as
// fp32, P and dS as operands going backward; its results; then addresses and temporaries, a number
// found by compiling: with less, ptxas spills or waits for every product.
int registers_needed(KernelRole role, int head_dim, int groups, int streamed_rows) {
    switch (role) {
        case KernelRole::kForward:
            return streamed_rows + head_dim / 2 + (groups == 1 ? 24 : groups == 2 ? 32 : 16);
        case KernelRole::kQueryGradient:
            return streamed_rows * 5 / 4 + head_dim / 2 + 36;
        case KernelRole::kKeyValueGradient:
            return streamed_rows + head_dim + 32;
        case KernelRole::kGradients:
            return 224;
        case KernelRole::kDelta:
            break;
    }
    throw InternalError("{} has no registers for wgmma", to_string(role));
}

// Registers of a consumer thread when `resident` blocks share an SM: what all warpgroups of a
// block have at its start, less the producer's.
int consumer_registers(int groups, int resident, int producer) {
    const int entry =
        std::min(248, round_down(kRegistersOfSm / (kGroupThreads * (groups + 1) * resident), 8));
    return std::min(kMostRegisters, round_down((entry * (groups + 1) - producer) / groups, 8));
}

}  // namespace

bool is_wgmma_head_dim(int head_dim) {
    return head_dim == 32 || head_dim == 64 || head_dim == 128;
}

WgmmaPlan plan_wgmma(KernelRole role, int head_dim, int stationary_rows, int streamed_rows,
                     int stages, int shared_limit, const CompilerRelease& compiler, bool packed,
                     const ScoreNeeds& needs) {
    const int groups = stationary_rows / 64;
    const auto shared_of = [&](int stationary_stages) {
        return shared_bytes(role, head_dim, stationary_rows, streamed_rows, stages,
                            stationary_stages, packed, needs);
    };
    WgmmaPlan plan{.threads = kGroupThreads * (groups + 1)};
    // The producer of the statistics does with 32 registers, the others with 24. Block row
    // masks take a few more. Reduce warps, which are of its warpgroup, get what consumers leave.
    const int for_masks = !packed ? 0 : head_dim == 128 || streamed_rows == 128 ? 16 : 8;
    plan.producer_registers = role == KernelRole::kGradients          ? 56
                              : role == KernelRole::kKeyValueGradient ? 32 + for_masks
                                                                      : 24 + for_masks;
    plan.producer_registers += needs.producer_registers;
    plan.producer_registers += more_producer_registers(compiler, {.unit = MatrixUnit::kWgmma,
                                                                  .role = role,
                                                                  .head_dim = head_dim,
                                                                  .streamed_rows = streamed_rows,
                                                                  .packed = packed});
    plan.shared_bytes = shared_of(1);
    if (plan.shared_bytes > shared_limit) {
        plan.problem =
            fmt::format("shared memory: {} bytes of {}", plan.shared_bytes, shared_limit);
        return plan;
    }
    const int needed = registers_needed(role, head_dim, groups, streamed_rows) + needs.registers;
    const auto resident = [&](int stationary_stages) {
        int blocks =
            shared_of(stationary_stages) > shared_limit
                ? 0
                : std::min(kMostResident,
                           kSharedBytesOfSm90 / (shared_of(stationary_stages) + kReservedShared));
        while (blocks > 0 && consumer_registers(groups, blocks, plan.producer_registers) < needed) {
            --blocks;
        }
        return blocks;
    };
    // More blocks on an SM are worth more than a second stationary stage.
    plan.resident_blocks = resident(1);
    plan.stationary_stages = resident(2) == plan.resident_blocks ? 2 : 1;
    plan.shared_bytes = shared_of(plan.stationary_stages);
    if (plan.resident_blocks == 0) {
        plan.problem = fmt::format("registers: {} of {} a thread", needed,
                                   consumer_registers(groups, 1, plan.producer_registers));
        return plan;
    }
    plan.consumer_registers =
        consumer_registers(groups, plan.resident_blocks, plan.producer_registers);
    return plan;
}

}  // namespace spion
