#include "compiler/walk_summary.h"

#include <algorithm>
#include <vector>

namespace spion {
namespace {

std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
    return (a + b - 1) / b;
}

// `count` work items that each stream `rows` rows.
void add_items(WalkSummary& walk, std::int64_t count, std::int64_t rows, const TileShape& shape,
               int columns) {
    const std::int64_t steps = ceil_div(rows, shape.streamed_rows);
    const std::int64_t passes = ceil_div(rows, columns);
    walk.items += count;
    walk.streamed += count * rows;
    walk.steps += count * steps;
    walk.later_steps += count * std::max<std::int64_t>(0, steps - shape.stages);
    walk.passes += count * passes;
    walk.longest_steps = std::max(walk.longest_steps, steps);
    walk.longest_passes = std::max(walk.longest_passes, passes);
}

}  // namespace

StreamedRows streamed_rows(const BlockPattern& pattern, KernelRole role) {
    const bool walks_columns = role == KernelRole::kKeyValueGradient;
    const auto blocks = static_cast<std::size_t>(pattern.rows());
    StreamedRows rows{.stationary = std::vector<std::int64_t>(blocks),
                      .streamed = std::vector<std::int64_t>(blocks)};
    std::vector<bool> used(blocks);
    for (int row = 0; row < pattern.rows(); ++row) {
        rows.stationary[static_cast<std::size_t>(row)] = pattern.block_rows(row);
        for (const std::int32_t column : pattern.row(row)) {
            const int here = walks_columns ? column : row, other = walks_columns ? row : column;
            rows.streamed[static_cast<std::size_t>(here)] += pattern.block_rows(other);
            used[static_cast<std::size_t>(other)] = true;
        }
    }
    for (int block = 0; block < pattern.rows(); ++block) {
        rows.distinct += used[static_cast<std::size_t>(block)] ? pattern.block_rows(block) : 0;
    }
    return rows;
}

WalkSummary summarise(const StreamedRows& rows, const TileShape& shape, int columns) {
    WalkSummary walk{.distinct = rows.distinct};
    for (std::size_t block = 0; block < rows.stationary.size(); ++block) {
        add_items(walk, ceil_div(rows.stationary[block], shape.stationary_rows),
                  rows.streamed[block], shape, columns);
    }
    return walk;
}

TileShape shape_of(const TileProgram& program) {
    return {.stationary_rows = program.stationary_rows,
            .streamed_rows = program.streamed_rows,
            .granule = program.granule,
            .warps = program.warps,
            .stages = program.stages,
            .wgmma = program.unit == MatrixUnit::kWgmma};
}

WalkSummary summarise(const TileProgram& program, int columns) {
    const std::int64_t length = program.attention.length;
    const TileShape shape = shape_of(program);
    const auto rows_of = [&](std::int64_t granule) {
        return std::min<std::int64_t>(program.granule, length - granule * program.granule);
    };
    std::vector<bool> used(static_cast<std::size_t>(ceil_div(length, program.granule)));
    WalkSummary walk;
    for (std::size_t item = 0; item < program.order.size(); ++item) {
        std::int64_t rows = 0;
        for (std::int32_t at = program.offsets[item]; at < program.offsets[item + 1]; ++at) {
            const std::int32_t granule = program.granules[static_cast<std::size_t>(at)];
            rows += rows_of(granule);
            used[static_cast<std::size_t>(granule)] = true;
        }
        add_items(walk, 1, rows, shape, columns);
    }
    for (std::size_t granule = 0; granule < used.size(); ++granule) {
        walk.distinct += used[granule] ? rows_of(static_cast<std::int64_t>(granule)) : 0;
    }
    return walk;
}

}  // namespace spion
