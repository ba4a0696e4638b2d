#include "codegen/cuda/register_plan.h"

#include <algorithm>
#include <span>

#include "codegen/cuda/sm_limits.h"
#include "codegen/cuda/tile_width.h"
#include "ir/error.h"

namespace spion {
namespace {

constexpr int kMostResidentBlocks = 16;  // the smallest limit, of sm_86

// What a thread keeps at every head dimension above the row before and up to this one, found by
// compiling: at `registers`, one of the steps that whole numbers of blocks of 128 threads allow, no
// architecture spills. Fewer columns or operands fetched at every use make room for more blocks at
// the price of more reads of shared memory. A result has head_dim / 2 registers, so that from 176
// on (144 for 4-byte elements) dK and dV are made one after the other.
struct Measured {
    int head_dim;
    int columns;
    bool held;
    int registers;
    bool dv_then_dk = false;
};

constexpr Measured kForward16[] = {{16, 64, true, 96},   {32, 64, true, 128},
                                   {64, 64, true, 168},  {112, 64, false, 168},
                                   {160, 64, true, 256}, {256, 64, false, 256}};
constexpr Measured kForward32[] = {
    {16, 64, true, 128}, {32, 32, true, 168}, {64, 32, true, 168}, {256, 32, false, 256}};
constexpr Measured kQueryGradient16[] = {{16, 32, true, 96},   {32, 32, true, 128},
                                         {64, 32, true, 168},  {112, 32, false, 168},
                                         {144, 32, true, 256}, {256, 32, false, 256}};
constexpr Measured kQueryGradient32[] = {
    {16, 32, true, 128}, {32, 32, true, 168}, {64, 32, false, 168}, {256, 32, false, 256}};
constexpr Measured kKeyValueGradient16[] = {{16, 32, true, 96},    {32, 32, true, 128},
                                            {64, 32, false, 168},  {144, 32, false, 256},
                                            {160, 16, false, 256}, {256, 32, false, 256, true}};
constexpr Measured kKeyValueGradient32[] = {
    {16, 32, true, 168}, {32, 32, true, 168}, {128, 32, false, 256}, {256, 32, false, 256, true}};

std::span<const Measured> measured(KernelRole role, bool wide) {
    switch (role) {
        case KernelRole::kForward:
            return wide ? std::span<const Measured>(kForward32) : kForward16;
        case KernelRole::kQueryGradient:
            return wide ? std::span<const Measured>(kQueryGradient32) : kQueryGradient16;
        case KernelRole::kKeyValueGradient:
            return wide ? std::span<const Measured>(kKeyValueGradient32) : kKeyValueGradient16;
        case KernelRole::kDelta:
        case KernelRole::kGradients:
            break;
    }
    throw InternalError("kernel role {} has no register plan", static_cast<int>(role));
}

int resident_blocks(int warps, int registers) {
    return std::clamp(kRegistersOfSm / (32 * warps * registers), 1, kMostResidentBlocks);
}

RegisterPlan plan_for(KernelRole role, DType dtype, int head_dim, int columns, int warps,
                      int more) {
    for (const Measured& row : measured(role, storage_bytes(dtype) == 4)) {
        if (head_dim <= row.head_dim) {
            return {.columns = std::min(row.columns, columns),
                    .held = row.held,
                    .dv_then_dk = row.dv_then_dk,
                    .registers = row.registers,
                    .resident_blocks = resident_blocks(warps, row.registers + more)};
        }
    }
    throw InternalError("head dimension {} has no register plan", head_dim);
}

constexpr int kRoomOfSequences = 40;  // so many that every number of warps has one block less

// For bodies that keep a few registers more than the tables count: one row has none to spare. Where
// sequences begin and end takes more of them.
RegisterPlan plan_with_room(KernelRole role, const Attention& attention, int columns, int warps) {
    const DType dtype = attention.dtype;
    const int head_dim = mma_tile_width(attention);
    if (attention.varlen) {
        return plan_for(role, dtype, head_dim, columns, warps, kRoomOfSequences);
    }
    const RegisterPlan plan = plan_for(role, dtype, head_dim, columns, warps, 0);
    const bool full = role == KernelRole::kKeyValueGradient && plan.registers == 128;
    return full && plan.columns > 16 ? plan_for(role, dtype, head_dim, columns, warps, 8) : plan;
}

bool changes_scores(const Attention& attention) {
    return attention.dropout > 0.0F || attention.softcap > 0.0F || attention.alibi ||
           attention.relative_bias > 0 || !attention.score.empty();
}

// With words of what is kept, slopes of changed scores, a head's slope or biases: fewer columns at once, and
// fewer blocks on an SM, until there is room.
RegisterPlan plan_with_changes(KernelRole role, const Attention& attention, int columns,
                               int warps) {
    constexpr int kMostRegisters = 255, kRoom = 40, kFewColumns = 16;
    const RegisterPlan plan =
        plan_for(role, attention.dtype, mma_tile_width(attention), columns, warps, 0);
    const bool full = plan.registers + kRoom > kMostRegisters;
    return plan_for(role, attention.dtype, mma_tile_width(attention), full ? kFewColumns : columns,
                    warps, kRoom);
}

}  // namespace

RegisterPlan plan_registers(KernelRole role, const Attention& attention, int streamed_rows,
                            int warps) {
    const DType dtype = attention.dtype;
    const int tile_width = mma_tile_width(attention);
    if (changes_scores(attention)) {
        return plan_with_changes(role, attention, streamed_rows, warps);
    }
    return attention.mask == ElementMask::kSpans
               ? plan_with_room(role, attention, streamed_rows, warps)
               : plan_for(role, dtype, tile_width, streamed_rows, warps, 0);
}

RegisterPlan plan_packed_registers(KernelRole role, const Attention& attention, int streamed_rows,
                                   int gather_rows, int warps) {
    const int columns = std::min(streamed_rows, gather_rows);
    return changes_scores(attention) ? plan_with_changes(role, attention, columns, warps)
                                     : plan_with_room(role, attention, columns, warps);
}

RegisterPlan plan_summary_registers(DType dtype, int head_dim, int tile) {
    const bool wide = storage_bytes(dtype) == 4;
    const int registers = wide && head_dim >= 128 ? 168 : 128;
    return {.columns = tile,
            .held = false,
            .registers = registers,
            .resident_blocks = resident_blocks(tile / 16, registers)};
}

}  // namespace spion
