#include "compiler/plan/walk_summary.h"

#include <algorithm>
#include <vector>

#include "ir/ceil_div.h"

namespace spion {
namespace {

// `count` work items that each stream `rows` rows past `multiplied` stationary rows, summed over
// their passes.
void add_items(WalkSummary& walk, std::int64_t count, std::int64_t rows, std::int64_t multiplied,
               const TileShape& shape, int columns) {
    const std::int64_t steps = ceil_div(rows, shape.streamed_rows);
    const std::int64_t mma_iterations = ceil_div(rows, columns);
    walk.items += count;
    walk.streamed += count * rows;
    walk.steps += count * steps;
    walk.later_steps += count * std::max<std::int64_t>(0, steps - shape.stages);
    walk.mma_iterations += count * mma_iterations;
    walk.multiplied += count * multiplied;
    walk.longest_steps = std::max(walk.longest_steps, steps);
    walk.longest_mma_iterations = std::max(walk.longest_mma_iterations, mma_iterations);
}

// Adds one pattern's, as its role walks it.
void add_rows(StreamedRows& result, const BlockPattern& walked) {
    const int packed_rows = result.packed_rows;
    const auto blocks = static_cast<std::size_t>(walked.columns());
    std::vector<bool> used_by_any(blocks);
    for (int first = 0; first < walked.rows(); first += packed_rows) {
        std::vector<bool> used(blocks);
        std::int64_t stationary = 0, streamed = 0;
        for (int row = first; row < std::min(first + packed_rows, walked.rows()); ++row) {
            stationary += walked.block_rows(row);
            std::int64_t own = 0;
            for (const std::int32_t block : walked.row(row)) {
                const auto at = static_cast<std::size_t>(block);
                own += walked.block_columns(block);
                streamed += used[at] ? 0 : walked.block_columns(block);
                used[at] = used_by_any[at] = true;
            }
            if (packed_rows > 1) {
                result.used.push_back(own);
            }
        }
        result.stationary.push_back(stationary);
        result.streamed.push_back(streamed);
    }
    for (int block = 0; block < walked.columns(); ++block) {
        result.distinct +=
            used_by_any[static_cast<std::size_t>(block)] ? walked.block_columns(block) : 0;
    }
}

}  // namespace

StreamedRows streamed_rows(const HeadPatterns& patterns, KernelRole role, int packed_rows) {
    StreamedRows result{
        .stationary = {}, .streamed = {}, .packed_rows = packed_rows, .heads = patterns.count()};
    for (const BlockPattern& pattern : patterns) {
        add_rows(result, walks_columns(role) ? pattern.transpose() : pattern);
    }
    return result;
}

WalkSummary summarise(const StreamedRows& rows, const TileShape& shape, int columns) {
    WalkSummary walk{.heads = rows.heads, .distinct = rows.distinct};
    const auto packed = static_cast<std::size_t>(rows.packed_rows);
    // A pattern's last packed tile may have fewer block rows than others.
    const std::size_t tiles_a_head = rows.stationary.size() / static_cast<std::size_t>(rows.heads);
    const std::size_t rows_a_head = rows.used.size() / static_cast<std::size_t>(rows.heads);
    const std::int64_t block_row = shape.stationary_rows / rows.packed_rows;
    for (std::size_t tile = 0; tile < rows.stationary.size(); ++tile) {
        std::int64_t multiplied = 0;
        const std::size_t first = tile % tiles_a_head * packed;
        for (std::size_t row = first; row < std::min(first + packed, rows_a_head); ++row) {
            multiplied +=
                ceil_div(rows.used[tile / tiles_a_head * rows_a_head + row], columns) * block_row;
        }
        if (rows.packed_rows == 1) {
            multiplied = ceil_div(rows.streamed[tile], columns) * shape.stationary_rows;
        }
        add_items(walk, ceil_div(rows.stationary[tile], shape.stationary_rows), rows.streamed[tile],
                  multiplied, shape, columns);
    }
    return walk;
}

WalkSummary summarise(const TileProgram& program, int columns) {
    const std::int64_t length = streamed_length(program.attention, program.role);
    const TileShape shape = shape_of(program);
    const auto rows_of = [&](std::int64_t gather_block) {
        return std::min<std::int64_t>(program.gather_rows,
                                      length - gather_block * program.gather_rows);
    };
    const int packed = program.packed_rows();
    const auto sequence = static_cast<std::size_t>(ceil_div(length, program.gather_rows));
    const auto heads = static_cast<std::size_t>(program.attention.pattern_count());
    std::vector<bool> used(sequence * heads);
    WalkSummary walk{.heads = program.attention.pattern_count()};
    for (std::size_t item = 0; item < program.order.size(); ++item) {
        std::int64_t rows = 0;
        std::vector<std::int64_t> own(static_cast<std::size_t>(packed));  // of a block row
        for (std::int32_t at = program.offsets[item]; at < program.offsets[item + 1]; ++at) {
            const auto entry = static_cast<std::size_t>(at);
            const std::int32_t gather_block = program.gather_blocks[entry];
            rows += rows_of(gather_block);
            for (std::size_t row = 0; row < own.size(); ++row) {
                const bool has_block =
                    packed == 1 || (program.block_row_masks[entry] >> row & 1U) != 0;
                own[row] += has_block ? rows_of(gather_block) : 0;
            }
            used[static_cast<std::size_t>(program.pattern(static_cast<int>(item))) * sequence +
                 static_cast<std::size_t>(gather_block)] = true;
        }
        std::int64_t multiplied = 0;
        for (const std::int64_t mine : own) {
            multiplied += ceil_div(mine, columns) * (shape.stationary_rows / packed);
        }
        add_items(walk, 1, rows, multiplied, shape, columns);
    }
    for (std::size_t at = 0; at < used.size(); ++at) {
        walk.distinct += used[at] ? rows_of(static_cast<std::int64_t>(at % sequence)) : 0;
    }
    return walk;
}

}  // namespace spion
