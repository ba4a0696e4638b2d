#include "compiler/passes/walk_pattern.h"

#include <limits>

#include "ir/error.h"

namespace spion {
namespace {

std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
    return (a + b - 1) / b;
}

}  // namespace

TileProgram walk_pattern(TileProgram program, const PassContext& context) {
    const BlockPattern& pattern = context.walked;
    const std::int64_t tiles = ceil_div(pattern.length(), program.stationary_rows);
    const int gather_blocks_a_block = pattern.block() / program.gather_rows;
    program.offsets = {0};
    for (std::int64_t tile = 0; tile < tiles; ++tile) {
        program.order.push_back(static_cast<std::int32_t>(tile));
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
                "the pattern of length {} in blocks of {} makes too many gather blocks to number "
                "with 32 "
                "bits: use a sparser pattern or a shorter sequence",
                pattern.length(), pattern.block());
        }
        program.offsets.push_back(static_cast<std::int32_t>(program.gather_blocks.size()));
    }
    return program;
}

}  // namespace spion
