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
    std::vector<std::int32_t> documents = {}, key_documents = {}, prefixes = {}, query_lengths = {};
};

struct Problem {
    int heads = 2, head_dim = 32, block = 32;
    std::int64_t length = 0, batch = 1;
    bool pruned_zero = false, causal = false;
    int key_value_heads = 0;            // 0: as many as heads
    std::vector<std::uint8_t> bits;     // [patterns, nb, nbk], or [batch, patterns, nb, nbk]
    std::vector<std::int32_t> lengths;  // [batch], or empty without key padding
    std::vector<float> q, k, v, d_o;    // [B, H, L, D]; K and V with their own heads and length,
                                        // V and dO with a width of their own
    std::optional<Rules> rules = {};    // instead of `causal`
    std::int64_t key_length = 0;        // 0: length
    int value_dim = 0;                  // 0: head_dim
    int patterns = 1;
    float softcap = 0, dropout = 0;
    std::uint64_t seed = 0;  // of dropout
    std::uint32_t offset = 0;
    bool dropout_enabled = true;
    std::vector<float> alibi_slopes = {}, sinks = {};  // [heads], or empty
    int reach = 0;                                     // R of a bias by relative position; 0: none
    std::vector<float> relative_bias = {};             // [heads, 2R + 1], or empty
    std::string score = {};                            // an expression of them, or empty
    // [B + 1] of sequences of at most `length`, which calls are given end to end, without what the
    // tensors above hold beyond their ends; or empty.
    std::vector<std::int32_t> cu_seqlens = {};
    std::vector<std::int32_t> key_cu_seqlens =
        {};                     // the same of keys, where they are others; or empty
    bool own_patterns = false;  // of each sequence

    int pattern_count() const { return patterns * (own_patterns ? static_cast<int>(batch) : 1); }
    const std::vector<std::int32_t>& starts(bool of_keys) const {
        return of_keys && !key_cu_seqlens.empty() ? key_cu_seqlens : cu_seqlens;
    }
    std::int64_t keys() const { return key_length == 0 ? length : key_length; }
    int value_width() const { return value_dim == 0 ? head_dim : value_dim; }
};

struct Outputs {
    std::vector<float> o, lse, d_q, d_k, d_v, d_sinks = {}, d_relative_bias = {};
};

// Normal tensors, a pattern with about `density` of the blocks, and lengths where `padding` asks.
Problem random_problem(std::int64_t length, int block, int heads, int head_dim, std::int64_t batch,
                       double density, bool padding, std::uint64_t seed);
// What a problem may have beside its tensors and masks, drawn anew: other lengths of keys, another width
// of V, heads of K and V, patterns of heads, and what changes scores and probabilities.
struct Options {
    std::int64_t key_length = 0;
    int key_value_heads = 0, patterns = 1;
    bool softcap = false, alibi = false, sinks = false, dropout = false;
    int value_dim = 0;
    int reach = 0;  // of a bias by relative position
    const char* score = "";
};
Problem random_problem(const Problem& shape, const Options& options, double density,
                       std::uint64_t seed);
// B sequences of a total of T positions, each of 0 to `length`, one of them of `length`.
std::vector<std::int32_t> random_sequences(std::int64_t length, std::int64_t batch,
                                           std::uint64_t seed);
// [B, heads, L, width] to [T, heads, width], and back with zeros beyond the ends.
std::vector<float> packed(const Problem& problem, const std::vector<float>& padded,
                          std::int64_t heads, std::int64_t width, bool of_keys = false);
std::vector<float> unpacked(const Problem& problem, const std::vector<float>& rows,
                            std::int64_t heads, std::int64_t width, bool of_keys = false);
// The problem with other patterns for each of its sequences.
Problem with_own_patterns(Problem problem, std::uint64_t seed);
// Any conjunction of rules.
Rules random_rules(std::int64_t length, std::int64_t batch, std::uint64_t seed,
                   std::int64_t key_length = 0);
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
