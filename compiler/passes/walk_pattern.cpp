#include "compiler/passes/walk_pattern.h"

#include <limits>

#include "ir/ceil_div.h"
#include "ir/error.h"

namespace spion {
namespace {

// Appends the gather blocks of a tile of one pattern.
void append_walk(TileProgram& program, const BlockPattern& pattern, std::int64_t tile) {
    const int gather_blocks_a_block = pattern.block() / program.gather_rows;
    const auto row = static_cast<int>(tile * program.stationary_rows / pattern.block());
    for (std::int32_t column : pattern.row(row)) {
        const int first = column * gather_blocks_a_block;
        const auto count =
            static_cast<int>(ceil_div(pattern.block_columns(column), program.gather_rows));
        for (int gather_block = first; gather_block < first + count; ++gather_block) {
            program.gather_blocks.push_back(gather_block);
        }
    }
    if (program.gather_blocks.size() > std::numeric_limits<std::int32_t>::max()) {
        throw UserError(
            "the pattern of length {} in blocks of {} makes too many gather blocks to number with "
            "32 bits: use a sparser pattern or a shorter sequence",
            pattern.length(), pattern.block());
    }
    program.offsets.push_back(static_cast<std::int32_t>(program.gather_blocks.size()));
}

}  // namespace

// Pattern after pattern, tile after tile; of a pattern a query head, dK and dV have a tile's walks
// of all members side by side.
TileProgram walk_pattern(TileProgram program, const PassContext& context) {
    const HeadPatterns& patterns = context.walked;
    const std::int64_t tiles = program.pattern_tiles();
    const int walks = item_walks(program.attention, program.role);
    if (tiles * patterns.count() > std::numeric_limits<std::int32_t>::max()) {
        throw UserError(
            "{} patterns of {} tiles are more than 32 bits number: use fewer or a "
            "shorter sequence",
            patterns.count(), tiles);
    }
    program.offsets = {0};
    for (int first = 0; first < patterns.count(); first += walks) {
        for (std::int64_t tile = 0; tile < tiles; ++tile) {
            for (int index = first; index < first + walks; ++index) {
                program.order.push_back(static_cast<std::int32_t>(index * tiles + tile));
                append_walk(program, patterns[index], tile);
            }
        }
    }
    return program;
}

}  // namespace spion
