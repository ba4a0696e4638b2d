#include <algorithm>

#include "codegen/cuda/hopper_plan.h"
#include "codegen/cuda/register_plan.h"
#include "codegen/cuda/warp_plan.h"
#include "compiler/cost_model.h"
#include "ir/error.h"

namespace spion {
namespace {

constexpr double kReservedShared = 1024;  // bytes a resident block, by the driver

// Bytes of shared memory of a thread block (codegen's geometry): its tiles, and LSE and delta of
// the queries.
std::int64_t shared_bytes_of(KernelRole role, const TileShape& shape, std::int64_t row_bytes) {
    const std::int64_t streamed = std::int64_t{shape.stages} * shape.streamed_rows;
    const std::int64_t tiles = (shape.stationary_rows + 2 * streamed) * row_bytes;
    switch (role) {
        case KernelRole::kForward:
            return tiles;
        case KernelRole::kQueryGradient:
            return tiles + shape.stationary_rows * (row_bytes + 4);
        case KernelRole::kKeyValueGradient:
            return tiles + shape.stationary_rows * row_bytes + streamed * 8;
        case KernelRole::kDelta:
        case KernelRole::kGradients:
            break;
    }
    throw InternalError("kernel role {} has no tiles", static_cast<int>(role));
}

Residency of_wgmma(const Attention& attention, KernelRole role, const TileShape& shape,
                   const Target& target, const Rates& rates) {
    const HopperPlan plan = plan_hopper(
        role, attention.head_dim, shape.stationary_rows, shape.streamed_rows, shape.stages,
        target.shared_bytes_per_block, target.compiler, shape.packed_rows > 1);
    return {.columns = shape.streamed_rows,
            .registers = plan.consumer_registers,
            .held = false,
            .shared = plan.shared_bytes,
            .blocks = plan.resident_blocks,
            .occupancy =
                static_cast<double>(plan.resident_blocks * plan.threads) / rates.resident_threads,
            .problem = plan.problem};
}

Residency of_warp_items(const Attention& attention, KernelRole role, const TileShape& shape,
                        const Target& target, const Rates& rates) {
    const WarpPlan plan =
        plan_warps(role, attention.head_dim, shape.stationary_rows, shape.streamed_rows,
                   shape.stages, target.shared_bytes_per_block);
    return {.columns = plan.columns,
            .registers = plan.consumer_registers,
            .held = plan.held_operands > 0,
            .shared = plan.shared_bytes,
            .blocks = plan.resident_blocks,
            .occupancy =
                static_cast<double>(plan.resident_blocks * plan.threads) / rates.resident_threads,
            .items_at_once = plan.consumers,
            .problem = plan.problem};
}

// kDelta, whose threads keep nothing but a sum.
Residency of_sums(const TileShape& shape, const Rates& rates) {
    constexpr int kRegisters = 32, kBlocks = 8;
    return {.columns = shape.streamed_rows,
            .registers = kRegisters,
            .blocks = kBlocks,
            .occupancy = kBlocks * 32.0 * shape.warps / rates.resident_threads};
}

Residency of_thread_blocks(const Attention& attention, KernelRole role, const TileShape& shape,
                           const Target& target, const Rates& rates) {
    const bool packed = shape.packed_rows > 1;
    const RegisterPlan plan =
        packed ? plan_packed_registers(role, attention.dtype, attention.head_dim,
                                       shape.streamed_rows, shape.granule, shape.warps)
               : plan_registers(role, attention.dtype, attention.head_dim, shape.streamed_rows,
                                shape.warps);
    const int threads = 32 * shape.warps;
    const std::int64_t row_bytes =
        std::int64_t{attention.head_dim} * storage_bytes(attention.dtype);
    const std::int64_t shared = shared_bytes_of(role, shape, row_bytes);
    const auto by_shared =
        static_cast<int>(rates.resident_shared / (static_cast<double>(shared) + kReservedShared));
    const int by_registers = rates.registers / (threads * plan.registers);
    const std::string problem = packed && plan.gradients_apart
                                    ? "dV and dK are made apart, and the body does not pack then"
                                    : "";
    const int blocks = std::min({by_shared, by_registers, plan.resident_blocks,
                                 rates.resident_threads / threads, rates.resident_blocks});
    return {.columns = plan.columns,
            .registers = plan.registers,
            .held = plan.held,
            .gradients_apart = plan.gradients_apart,
            .shared = shared,
            .blocks = shared > target.shared_bytes_per_block || !problem.empty() ? 0 : blocks,
            .occupancy = static_cast<double>(blocks * threads) / rates.resident_threads,
            .problem = problem};
}

}  // namespace

Residency residency(const Attention& attention, KernelRole role, const TileShape& shape,
                    const Target& target, const Rates& rates) {
    if (target.back_end == BackEnd::kHost) {
        return {.columns = 1, .occupancy = 1};  // exactly the rows that there are
    }
    if (role == KernelRole::kDelta) {
        return of_sums(shape, rates);
    }
    if (shape.wgmma) {
        return of_wgmma(attention, role, shape, target, rates);
    }
    if (shape.warp_items) {
        return of_warp_items(attention, role, shape, target, rates);
    }
    return of_thread_blocks(attention, role, shape, target, rates);
}

}  // namespace spion
