#include "compiler/launch/walk_tables.h"

#include <algorithm>
#include <cstring>

#include "compiler/launch/dq_schedule.h"
#include "ir/error.h"

namespace spion {
namespace {

constexpr std::int64_t kAlignment = 4;  // numbers

std::int64_t aligned(std::int64_t numbers) {
    return (numbers + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

WalkTables walk_tables(const TileProgram& program, std::int64_t capacity) {
    const std::int64_t tiles = program.attention.pattern_count() * program.pattern_tiles();
    WalkTables tables{.capacity = capacity};
    tables.offsets = aligned(tiles);
    tables.gather_blocks = tables.offsets + aligned(tiles + 1);
    tables.block_row_masks = tables.gather_blocks + aligned(std::max<std::int64_t>(1, capacity));
    tables.tickets = tables.block_row_masks + (program.packed_rows() > 1 ? aligned(capacity) : 0);
    tables.size = tables.tickets + (program.role == KernelRole::kGradients ? aligned(capacity) : 0);
    return tables;
}

std::int64_t most_gather_blocks(const TileProgram& program, std::int64_t blocks) {
    if (program.gather_rows > program.block) {
        throw InternalError(
            "gather blocks of {} in blocks of {}: their number depends on the pattern",
            program.gather_rows, program.block);
    }
    const std::int64_t tiles_a_block =
        program.stationary_rows < program.block ? program.block / program.stationary_rows : 1;
    return blocks * tiles_a_block * (program.block / program.gather_rows);
}

void write_walk(const TileProgram& program, const WalkTables& tables, int sm_count,
                std::span<std::int32_t> block) {
    const auto listed = static_cast<std::int64_t>(program.gather_blocks.size());
    if (listed > tables.capacity || static_cast<std::int64_t>(block.size()) != tables.size) {
        throw InternalError("a walk of {} gather blocks for tables of {}, {} numbers for {}",
                            listed, tables.capacity, block.size(), tables.size);
    }
    const auto write = [&](std::int64_t at, const auto& table) {
        if (!table.empty()) {
            std::memcpy(block.data() + at, table.data(), table.size() * sizeof(std::int32_t));
        }
    };
    std::fill(block.begin(), block.end(), 0);
    write(tables.order, program.order);
    write(tables.offsets, program.offsets);
    if (program.role == KernelRole::kGradients) {
        const DqSchedule schedule = schedule_dq(program, sm_count);
        write(tables.gather_blocks, schedule.gather_blocks);
        write(tables.tickets, schedule.tickets);
    } else {
        write(tables.gather_blocks, program.gather_blocks);
        write(tables.block_row_masks, program.block_row_masks);
    }
}

void point_at(const std::int32_t* block, const WalkTables& tables, SpionAttentionArguments& args) {
    args.order = block + tables.order;
    args.offsets = block + tables.offsets;
    args.gather_blocks = block + tables.gather_blocks;
    args.block_row_masks = reinterpret_cast<const unsigned*>(block + tables.block_row_masks);
}

}  // namespace spion
