// The kernel that accumulates the pooled map of discovery while walking the dense score map again
// after the forward pass (kernels/*/score_summary).
#pragma once

#include <string>

#include "ir/attention.h"

namespace spion {

struct ScoreSummaryProgram {
    Attention attention;
    int block = 64;   // the pattern's edge
    int filter = 31;  // F of the diagonal convolution, 1 for none: 1 .. 2 * block + 1
    int tile = 64;    // rows and columns of one work item: 16, 32 or 64, at most the block
    friend bool operator==(const ScoreSummaryProgram&, const ScoreSummaryProgram&) = default;
};

// "program role=score_summary", the attention, "shape block=64 tile=64 filter=31" (docs/ir.md).
std::string to_text(const ScoreSummaryProgram& program);

}  // namespace spion
