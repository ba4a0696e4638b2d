// A feed-forward part with random operands in bf16, and what must come out, in double.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "kernels/train_arguments.h"
#include "tests/kernels/train_reference.h"
#include "train/fused_feed_forward.h"

namespace spion {

struct FeedForwardProblem {
    FeedForwardProblem(const FusedFeedForwardShape& shape, std::int64_t rows, bool dropout_enabled,
                       std::mt19937& random);

    FusedFeedForwardShape shape;
    std::int64_t rows;
    std::vector<std::uint16_t> x, weight1, weight2;  // bf16 [N, C], [F, C], [C, F]
    std::vector<float> bias1, bias2;                 // [F], [C]
    SpionDropout dropout;

    // The results of a kernel in bf16: hidden and gated [N, F], y [N, C]. Each is held against what
    // follows from the one before it as it was stored. Fails the test unless they are near.
    void expect(const std::vector<std::uint16_t>& hidden, const std::vector<std::uint16_t>& gated,
                const std::vector<std::uint16_t>& y) const;
};

}  // namespace spion
