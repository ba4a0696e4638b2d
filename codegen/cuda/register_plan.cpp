#include "codegen/cuda/register_plan.h"

#include <algorithm>

namespace spion {
namespace {

// Registers of a thread, all its accumulators and fragments included, as ptxas needs them without
// spilling; measured over the architectures and rounded up to its steps.
int registers_needed(KernelRole role, DType dtype, int head_dim, int columns, bool held) {
    const bool wide = storage_bytes(dtype) == 4;
    const int results = role == KernelRole::kKeyValueGradient ? 2 : 1;
    const int operands = role == KernelRole::kForward ? 1 : 2;
    const int scores = role == KernelRole::kForward ? 1 : 2;
    return results * head_dim / 2 + scores * columns / 2 +
           (held ? operands * head_dim / (wide ? 2 : 4) : 0) + 56 + (wide ? 24 : 0);
}

}  // namespace

RegisterPlan plan_registers(KernelRole role, DType dtype, int head_dim, int streamed_rows,
                            int warps) {
    const bool wide = storage_bytes(dtype) == 4;
    RegisterPlan plan;
    plan.columns = role == KernelRole::kForward && !(wide && head_dim >= 64) ? 64 : 32;
    if (wide && head_dim == 128 && role == KernelRole::kKeyValueGradient) plan.columns = 16;
    plan.columns = std::min(plan.columns, streamed_rows);
    plan.held = !(head_dim == 128 && (wide || role == KernelRole::kKeyValueGradient));
    const int needed = registers_needed(role, dtype, head_dim, plan.columns, plan.held);
    plan.resident_blocks = std::clamp(65536 / (32 * warps * needed), 1, 16);
    return plan;
}

RegisterPlan plan_summary_registers(DType /*dtype*/, int /*head_dim*/, int tile) {
    return {.columns = tile, .held = false, .resident_blocks = std::clamp(64 / tile, 1, 16) * 2};
}

}  // namespace spion
