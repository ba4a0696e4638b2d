// What the float64 reference is held against: dense L x L matrices, with nothing taken from it.
#pragma once

#include <cstdint>
#include <functional>
#include <random>
#include <vector>

#include "tools/oracle/reference_attention.h"

namespace spion::test {

struct Inputs {
    std::vector<float> q, k, v, d_o;  // [B, H, L, D]
};

Inputs random_inputs(const Attention& attention, std::int64_t batch, std::mt19937_64& generator);

// Every third block row is empty, the others have a third of their blocks.
BlockPattern pattern_with_empty_rows(std::int64_t length, int block, std::mt19937_64& generator);

// Of references to its arguments, which must outlive it.
ReferenceProblem problem_of(const Attention& attention, const BlockPattern& pattern,
                            std::int64_t batch, const std::vector<int>& lengths,
                            const Inputs& inputs);

// The one expression of scores that NaiveAttention knows, written out in it by hand.
constexpr const char* kNaiveScore =
    "q < k ? 3 * tanh(score / 3) : score * sigmoid(score) - (head + 2 * batch) * fabs(q - k) / 9";

// Whether query i keeps key j.
using Keeps = std::function<bool(std::int64_t i, std::int64_t j)>;

bool keeps_all(std::int64_t i, std::int64_t j);

// One (b, h) with L x L matrices, every element of the map treated by one rule: in the sum, counted
// as a score of 0, or absent.
struct NaiveAttention {
    std::vector<std::vector<double>> p, d_s;   // [L][L]
    std::vector<std::vector<double>> dropped;  // [L][L] p where it is kept, times what that counts
    std::vector<double> lse;                   // [L]
    double d_sink = 0;
    std::vector<double> d_bias;  // [2R + 1], empty without a bias

    NaiveAttention(const ReferenceProblem& problem, std::int64_t head, const Keeps& keeps);
};

// Every output of the reference, within 1e-10.
void expect_equals_naive(const ReferenceProblem& problem, const Keeps& keeps = keeps_all);

}  // namespace spion::test
