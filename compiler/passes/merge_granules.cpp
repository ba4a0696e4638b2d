#include "compiler/passes/merge_granules.h"

#include <algorithm>
#include <utility>

namespace spion {
namespace {

// Whether every group of `group` aligned granules is listed whole or not at all by every work item.
// The group at the end of the sequence may have fewer.
bool comes_in_groups(const TileProgram& program, int group) {
    const std::int64_t last_granule =
        (program.attention.length + program.granule - 1) / program.granule - 1;
    for (int item = 0; item < program.tiles(); ++item) {
        std::int32_t at = program.offsets[item];
        while (at < program.offsets[item + 1]) {
            const std::int64_t first = program.granules[at];
            const std::int64_t end = std::min(first + group, last_granule + 1);
            // Granules ascend, so a whole group is `end - first` places with the last at its end.
            const std::int64_t next = at + (end - first);
            if (first % group != 0 || next > program.offsets[item + 1] ||
                program.granules[next - 1] != end - 1) {
                return false;
            }
            at = static_cast<std::int32_t>(next);
        }
    }
    return true;
}

TileProgram merged(TileProgram program, int group) {
    std::vector<std::int32_t> offsets = {0};
    std::vector<std::int32_t> granules;
    for (int item = 0; item < program.tiles(); ++item) {
        for (std::int32_t at = program.offsets[item]; at < program.offsets[item + 1]; ++at) {
            if (program.granules[at] % group == 0) {
                granules.push_back(program.granules[at] / group);
            }
        }
        offsets.push_back(static_cast<std::int32_t>(granules.size()));
    }
    program.granule *= group;
    program.offsets = std::move(offsets);
    program.granules = std::move(granules);
    return program;
}

}  // namespace

TileProgram merge_granules(TileProgram program, const PassContext& context) {
    const int asked = std::min(context.shape.granule, program.streamed_rows);
    for (int group = asked / program.granule; asked > program.block && group > 1; group /= 2) {
        if (program.streamed_rows % (group * program.granule) == 0 &&
            comes_in_groups(program, group)) {
            return merged(std::move(program), group);
        }
    }
    return program;
}

}  // namespace spion
