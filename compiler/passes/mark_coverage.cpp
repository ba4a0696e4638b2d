#include "compiler/passes/mark_coverage.h"

namespace spion {

TileProgram mark_coverage(TileProgram program, const PassContext& /*context*/) {
    program.coverages.clear();
    for (int item = 0; item < program.tiles(); ++item) {
        const auto end = static_cast<std::size_t>(program.offsets[item + 1]);
        for (auto at = static_cast<std::size_t>(program.offsets[item]); at < end; ++at) {
            program.coverages.push_back(gather_block_coverage(program, item, at));
        }
    }
    return program;
}

}  // namespace spion
