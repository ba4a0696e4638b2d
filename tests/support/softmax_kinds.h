// The softmax kinds as tests see them: all of them, and the float64 references' idea of what each does
// with pruned elements (ir/attention.h).
#pragma once

#include <cstdint>
#include <vector>

#include "ir/attention.h"

namespace spion::test {

inline std::vector<SoftmaxKind> softmax_kinds() {
    std::vector<SoftmaxKind> kinds;
    for (std::size_t n = 0; n < kSoftmaxNames.size(); ++n) {
        kinds.push_back(static_cast<SoftmaxKind>(n));
    }
    return kinds;
}

// Scores of 0 in the sum of a query row that keeps `kept` elements, `listed` of them in the pattern.
inline std::int64_t pruned_elements(SoftmaxKind kind, std::int64_t kept, std::int64_t listed) {
    return kind == SoftmaxKind::kPrunedZero ? kept - listed : 0;
}

}  // namespace spion::test
