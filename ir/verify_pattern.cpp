#include <algorithm>
#include <cstdint>
#include <span>

#include "ir/verify_parts.h"

namespace spion {
namespace {

// Blocks [first, last] of the sequence that a gather block reaches into.
struct Columns {
    int first, last;
};

Columns columns_of(const TileProgram& program, std::int32_t gather_block) {
    const std::int64_t begin = std::int64_t{gather_block} * program.gather_rows;
    const std::int64_t end =
        std::min(begin + program.gather_rows, streamed_length(program.attention, program.role));
    return {static_cast<int>(begin / program.block), static_cast<int>((end - 1) / program.block)};
}

// One block row of a tile: bit `bit` of its gather blocks.
struct CoveredRow {
    int item, row, bit;
};

void verify_nothing_more(const TileProgram& program, const BlockPattern& pattern,
                         const CoveredRow& covered) {
    for (std::int32_t at = program.offsets[covered.item]; at < program.offsets[covered.item + 1];
         ++at) {
        if (!program.block_row_masks.empty() &&
            (program.block_row_masks[at] >> covered.bit & 1U) == 0) {
            continue;
        }
        const Columns columns = columns_of(program, program.gather_blocks[at]);
        for (int column = columns.first; column <= columns.last; ++column) {
            if (covered.row >= pattern.rows() || !pattern.at(covered.row, column)) {
                broken(covered.item,
                       "tile {} streams gather block {} outside the pattern (block row {})",
                       program.order[covered.item], program.gather_blocks[at], covered.row);
            }
        }
    }
}

void verify_nothing_less(const TileProgram& program, const BlockPattern& pattern,
                         const CoveredRow& covered) {
    const std::span<const std::int32_t> listed = gather_blocks_of(program, covered.item);
    for (std::int32_t column : pattern.row(covered.row)) {
        const std::int64_t begin = std::int64_t{column} * program.block;
        const std::int64_t end = begin + pattern.block_columns(column);
        for (std::int64_t gather_block = begin / program.gather_rows;
             gather_block * program.gather_rows < end; ++gather_block) {
            const auto found = std::lower_bound(listed.begin(), listed.end(), gather_block);
            const auto at = static_cast<std::size_t>(program.offsets[covered.item]) +
                            static_cast<std::size_t>(found - listed.begin());
            if (found == listed.end() || *found != gather_block ||
                (!program.block_row_masks.empty() &&
                 (program.block_row_masks[at] >> covered.bit & 1U) == 0)) {
                broken(covered.item, "tile {} lacks gather block {} of the pattern (block row {})",
                       program.order[covered.item], gather_block, covered.row);
            }
        }
    }
}

}  // namespace

void verify_coverage(const TileProgram& program, const HeadPatterns& patterns) {
    for (int item = 0; item < program.tiles(); ++item) {
        const BlockPattern& pattern = patterns[program.pattern(item)];
        const std::int64_t first_row = program.tile(item) * program.stationary_rows / program.block;
        for (int bit = 0; bit < program.packed_rows(); ++bit) {
            const CoveredRow covered{
                .item = item, .row = static_cast<int>(first_row) + bit, .bit = bit};
            verify_nothing_more(program, pattern, covered);
            if (covered.row < pattern.rows()) {
                verify_nothing_less(program, pattern, covered);
            }
        }
    }
}

}  // namespace spion
