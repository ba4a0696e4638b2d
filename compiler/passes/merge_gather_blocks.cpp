#include "compiler/passes/merge_gather_blocks.h"

#include <algorithm>
#include <utility>

namespace spion {
namespace {

// Whether every group of `group` aligned gather blocks is listed whole or not at all by every work
// item. The group at the end of the sequence may have fewer.
bool comes_in_groups(const TileProgram& program, int group) {
    const std::int64_t last_gather_block =
        (streamed_length(program.attention, program.role) + program.gather_rows - 1) /
            program.gather_rows -
        1;
    for (int item = 0; item < program.tiles(); ++item) {
        std::int32_t at = program.offsets[item];
        while (at < program.offsets[item + 1]) {
            const std::int64_t first = program.gather_blocks[at];
            const std::int64_t end = std::min(first + group, last_gather_block + 1);
            // Gather blocks ascend, so a whole group is `end - first` places with the last at its
            // end.
            const std::int64_t next = at + (end - first);
            if (first % group != 0 || next > program.offsets[item + 1] ||
                program.gather_blocks[next - 1] != end - 1) {
                return false;
            }
            at = static_cast<std::int32_t>(next);
        }
    }
    return true;
}

TileProgram merged(TileProgram program, int group) {
    std::vector<std::int32_t> offsets = {0};
    std::vector<std::int32_t> gather_blocks;
    for (int item = 0; item < program.tiles(); ++item) {
        for (std::int32_t at = program.offsets[item]; at < program.offsets[item + 1]; ++at) {
            if (program.gather_blocks[at] % group == 0) {
                gather_blocks.push_back(program.gather_blocks[at] / group);
            }
        }
        offsets.push_back(static_cast<std::int32_t>(gather_blocks.size()));
    }
    program.gather_rows *= group;
    program.offsets = std::move(offsets);
    program.gather_blocks = std::move(gather_blocks);
    return program;
}

}  // namespace

TileProgram merge_gather_blocks(TileProgram program, const PassContext& context) {
    const int asked = std::min(context.shape.gather_rows, program.streamed_rows);
    for (int group = asked / program.gather_rows; asked > program.block && group > 1; group /= 2) {
        if (program.streamed_rows % (group * program.gather_rows) == 0 &&
            comes_in_groups(program, group)) {
            return merged(std::move(program), group);
        }
    }
    return program;
}

}  // namespace spion
