#include "ir/score_summary_program.h"

#include <fmt/format.h>

namespace spion {

std::string to_text(const ScoreSummaryProgram& program) {
    return fmt::format("program role=score_summary\n{}\nshape block={} tile={} filter={}\n",
                       to_text(program.attention), program.block, program.tile, program.filter);
}

}  // namespace spion
