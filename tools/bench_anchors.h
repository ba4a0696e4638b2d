// The shapes at which others were measured, and what they reached.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace spion {

// One H200, bf16, medians over events: FlexAttention at its best setting, or cuDNN where density is
// 1. Patterns: the diagonal plus random and vertical blocks, the same for all heads and samples.
struct Anchor {
    std::string_view name;
    std::int64_t batch = 1;   // B
    int heads = 1;            // H
    std::int64_t length = 0;  // L
    int head_dim = 64;        // D
    int block = 64;
    double density = 1;
    double forward_ms = 0;
    double backward_ms = 0;
    bool paper = false;  // of the paper's own experiments, or dense at such a size
};

std::span<const Anchor> anchors();

}  // namespace spion
