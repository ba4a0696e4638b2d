// What a launch says about scores and probabilities (ir/attention.h), and what dropout drops, from
// the words of kernels/random.h and the definition of Philox, not from its code.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ir/attention.h"

namespace spion {

// What an attention does not have is neither read nor checked.
struct ScoreValues {
    std::uint64_t seed = 0;  // of dropout
    std::uint32_t offset = 0;
    bool dropout_enabled = true;
    std::vector<float> alibi_slopes = {};   // [H]
    std::vector<float> sinks = {};          // [H]
    std::vector<float> relative_bias = {};  // [H, 2R + 1]
};

// Random ones of `seed`: any random numbers, sinks and biases of a standard normal distribution, and
// the slopes of Press et al. (ALiBi, 2022): head h has 2^(-8 (h + 1) / H).
ScoreValues random_score_values(const Attention& attention, std::uint64_t seed);

// Throws UserError when there are not as many slopes or sinks as the attention has heads, or not a
// table of biases a head.
void check(const ScoreValues& values, const Attention& attention);

// The place in relative_bias of what a head's scores get whose key lies `distance` behind the one that
// the query stands beside.
std::size_t bias_place(const Attention& attention, std::int64_t head, std::int64_t distance);

// The byte that decides about query i and key j of batch-head n = b * H + h.
int dropout_byte(const ScoreValues& values, std::int64_t batch_head, std::int64_t i,
                 std::int64_t j);

// What the element's probability is multiplied by: 0, or 1 over the share that is kept.
double dropout_factor(const Attention& attention, const ScoreValues& values,
                      std::int64_t batch_head, std::int64_t i, std::int64_t j);

}  // namespace spion
