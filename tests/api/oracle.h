// What attention through the library must give: tools/oracle/reference_attention.h, for tests that see
// the public headers alone.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace oracle {

// Of a mask within blocks, by the words of spion/mask.h.
struct Rules {
    bool causal = false;
    std::optional<std::int32_t> left = {}, right = {};
    std::vector<std::int32_t> documents = {}, prefixes = {}, query_lengths = {};
};

struct Problem {
    int heads = 2, head_dim = 32, block = 32;
    std::int64_t length = 0, batch = 1;
    bool pruned_zero = false, causal = false;
    int key_value_heads = 0;            // 0: as many as heads
    std::vector<std::uint8_t> bits;     // [nb, nb]
    std::vector<std::int32_t> lengths;  // [batch], or empty without key padding
    std::vector<float> q, k, v, d_o;    // [B, H, L, D]; K and V with their own heads
    std::optional<Rules> rules = {};    // instead of `causal`
};

struct Outputs {
    std::vector<float> o, lse, d_q, d_k, d_v;
};

// Normal tensors, a pattern with about `density` of the blocks, and lengths where `padding` asks.
Problem random_problem(std::int64_t length, int block, int heads, int head_dim, std::int64_t batch,
                       double density, bool padding, std::uint64_t seed);
// Any conjunction of rules.
Rules random_rules(std::int64_t length, std::int64_t batch, std::uint64_t seed);
// Another pattern for the same tensors.
std::vector<std::uint8_t> random_bits(std::int64_t length, int block, double density,
                                      std::uint64_t seed);

// A line for each tensor whose relative error to the reference is above `tolerance`, or which has
// NaN where the reference has none; "" when all are right. Gradients are judged unless empty.
std::string faults(const Problem& problem, const Outputs& outputs, double tolerance);

// Rounded to what bf16 stores, and its 16 bits.
float to_bf16(float value);
std::uint16_t bf16_bits(float value);
float from_bf16_bits(std::uint16_t bits);

}  // namespace oracle
