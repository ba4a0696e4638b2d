// Random attention problems for both back ends' tests: any pattern (empty rows and columns among
// them), ragged lengths, samples without a single key, both memory layouts.
#pragma once

#include <algorithm>
#include <ostream>
#include <random>
#include <vector>

#include "ir/score_expression.h"
#include "tests/support/random_case.h"
#include "tests/support/random_mask.h"
#include "tests/support/random_score.h"
#include "tests/support/softmax_kinds.h"
#include "tools/oracle/attention_case.h"

namespace spion {

// For the names of parametrised tests.
inline void PrintTo(DType dtype, std::ostream* out) {
    *out << to_string(dtype);
}

inline SoftmaxKind pick_softmax(std::mt19937_64& random) {
    return static_cast<SoftmaxKind>(pick(random, 0, static_cast<int>(kSoftmaxNames.size()) - 1));
}

// The kinds in turn.
inline SoftmaxKind next_softmax(SoftmaxKind kind) {
    return static_cast<SoftmaxKind>((static_cast<std::size_t>(kind) + 1) % kSoftmaxNames.size());
}

inline AttentionCase pick_attention(std::mt19937_64& random, DType dtype, int head_dim, int block,
                                    SoftmaxKind softmax) {
    BlockPattern pattern = pick_pattern(random, block, std::max(3, 384 / block));
    const std::int64_t length = pattern.length();
    AttentionCase problem{
        .attention = {.heads = pick(random, 1, 3),
                      .head_dim = head_dim,
                      .length = length,
                      .dtype = dtype,
                      .scale = default_scale(head_dim),
                      .softmax = softmax,
                      .key_padding = pick(random, 0, 1) == 1},
        .pattern = std::move(pattern),
        .batch = pick(random, 1, 3),
        .lengths = {},
        .seed = random(),
        .layout = pick(random, 0, 1) == 1 ? Layout::kPacked : Layout::kHeadsFirst};
    for (std::int64_t b = 0; problem.attention.key_padding && b < problem.batch; ++b) {
        // Nothing, everything, or something between.
        const int kind = pick(random, 0, 3);
        problem.lengths.push_back(kind == 0   ? 0
                                  : kind == 1 ? static_cast<int>(length)
                                              : pick(random, 0, static_cast<int>(length)));
    }
    return problem;
}

// The problem under an element mask, its rules random where they are the launch's.
inline AttentionCase with_mask(std::mt19937_64& random, AttentionCase problem, ElementMask mask) {
    problem.attention.mask = mask;
    if (mask == ElementMask::kSpans) {
        problem.rules =
            test::random_rules([&](int n) { return pick(random, 0, n - 1); }, problem.batch,
                               problem.attention.length, problem.attention.key_value_length());
    }
    return problem;
}

// The problem with another number of keys than queries.
inline AttentionCase with_other_keys(std::mt19937_64& random, AttentionCase problem) {
    const int block = problem.pattern.block();
    problem.pattern = pick_pattern(random, block, std::max(3, 384 / block), false);
    problem.attention.length = problem.pattern.length();
    problem.attention.kv_length = problem.pattern.key_length();
    for (int& valid : problem.lengths) {
        valid = pick(random, 0, static_cast<int>(problem.attention.kv_length));
    }
    return problem;
}

// A pattern of the same lengths and blocks, of any density.
inline BlockPattern random_blocks(std::mt19937_64& random, const BlockPattern& like) {
    const double density = std::uniform_real_distribution<double>(0.0, 1.0)(random);
    std::vector<std::uint8_t> bits(static_cast<std::size_t>(like.rows() * like.columns()));
    for (std::uint8_t& bit : bits) {
        bit = std::bernoulli_distribution(density)(random) ? 1 : 0;
    }
    return {like.length(), like.key_length(), like.block(), std::move(bits)};
}

// The problem with a pattern for every head of K and V, or for every query head.
inline AttentionCase with_patterns(std::mt19937_64& random, AttentionCase problem,
                                   bool of_queries) {
    Attention& attention = problem.attention;
    attention.patterns = of_queries ? attention.heads : attention.key_value_heads();
    std::vector<BlockPattern> patterns;
    for (int n = 0; n < attention.patterns; ++n) {
        patterns.push_back(random_blocks(random, problem.pattern.front()));
    }
    problem.pattern = HeadPatterns(std::move(patterns));
    return problem;
}

// The problem with another dimension of V than of Q and K.
inline AttentionCase with_value_dim(AttentionCase problem, int value_dim) {
    problem.attention.value_dim = value_dim;
    return problem;
}

// The problem's samples as sequences that lie end to end, of any lengths, with a mask of spans.
inline AttentionCase with_sequences(std::mt19937_64& random, AttentionCase problem) {
    problem.attention.varlen = true;
    problem.attention.key_padding = false;
    problem.lengths.clear();
    problem = with_mask(random, problem, ElementMask::kSpans);
    const auto length = static_cast<int>(problem.attention.length);
    for (std::int64_t b = 0; b < problem.batch; ++b) {
        const int kind = pick(random, 0, 3);
        problem.rules.sequence_lengths.push_back(kind == 0   ? length
                                                 : kind == 1 ? pick(random, 0, 20) % length
                                                             : pick(random, 1, length));
    }
    if (std::count(problem.rules.sequence_lengths.begin(), problem.rules.sequence_lengths.end(),
                   0) == problem.batch) {
        problem.rules.sequence_lengths.back() = 1;  // tensors of no rows are none
    }
    return problem;
}

// The same with keys that are sequences of their own, of any lengths up to Lk.
inline AttentionCase with_key_sequences(std::mt19937_64& random, AttentionCase problem) {
    problem = with_sequences(random, problem);
    problem.attention.key_starts = true;
    const auto keys = static_cast<int>(problem.attention.key_value_length());
    std::vector<int>& lengths = problem.rules.key_sequence_lengths;
    for (std::int64_t b = 0; b < problem.batch; ++b) {
        lengths.push_back(pick(random, 0, 3) == 0 ? keys : pick(random, 0, keys));
    }
    lengths.back() = std::max(lengths.back(), 1);  // tensors of no rows are none
    return problem;
}

// The same with patterns of each sequence's own, `patterns` of them, and room for more sequences.
inline AttentionCase with_sequence_patterns(std::mt19937_64& random, AttentionCase problem) {
    if (!problem.attention.varlen) {
        problem = with_sequences(random, problem);
    }
    Attention& attention = problem.attention;
    attention.sequence_patterns = static_cast<int>(problem.batch) + pick(random, 0, 1);
    const BlockPattern first = problem.pattern.front();
    std::vector<BlockPattern> patterns;
    for (int n = 0; n < attention.pattern_count(); ++n) {
        patterns.push_back(random_blocks(random, first));
    }
    problem.pattern = HeadPatterns(std::move(patterns));
    return problem;
}

// The problem with 2 or 3 query heads for each head of K and V.
inline AttentionCase with_grouped_heads(std::mt19937_64& random, AttentionCase problem) {
    problem.attention.kv_heads = pick(random, 1, 2);
    problem.attention.heads = problem.attention.kv_heads * pick(random, 2, 3);
    return problem;
}

// The problem with some changes of scores and probabilities, one at least.
inline AttentionCase with_changed_scores(std::mt19937_64& random, AttentionCase problem) {
    const int changes = pick(random, 1, 63);
    Attention& attention = problem.attention;
    if ((changes & 1) != 0) {
        attention.dropout = pick(random, 0, 1) == 0 ? 0.1F : 0.6F;
    }
    if ((changes & 2) != 0) {
        attention.softcap = pick(random, 0, 1) == 0 ? 1.5F : 30.0F;
    }
    attention.alibi = (changes & 4) != 0;
    attention.sink = (changes & 8) != 0;
    if ((changes & 16) != 0) {
        const int reaches[] = {1, 7, 40, 500};
        attention.relative_bias = reaches[pick(random, 0, 3)];
    }
    if ((changes & 32) != 0) {
        attention.softcap = 0.0F;  // which an expression has itself
        attention.score = canonical_score(test::random_score(random, 3, false));
    }
    problem.values = random_score_values(attention, problem.seed);
    problem.values->dropout_enabled = pick(random, 0, 4) > 0;
    return problem;
}

// A problem that is the same for all tests, to be changed where a test wants something else.
inline AttentionCase plain_attention(DType dtype, BlockPattern pattern) {
    const std::int64_t length = pattern.length();
    return {.attention = {.heads = 2,
                          .head_dim = 32,
                          .length = length,
                          .dtype = dtype,
                          .scale = default_scale(32)},
            .pattern = std::move(pattern),
            .batch = 2,
            .lengths = {},
            .seed = 5,
            .layout = Layout::kHeadsFirst};
}

// The corners, by name, of one dtype: dense, nothing at all, one key, no keys, tiles of padding
// alone.
inline std::vector<AttentionCase> corner_cases(DType dtype) {
    std::vector<AttentionCase> cases;
    for (const SoftmaxKind softmax : test::softmax_kinds()) {
        cases.push_back(plain_attention(dtype, BlockPattern::full(200, 64)));
        cases.push_back(plain_attention(dtype, BlockPattern::full(256, 128)));
        cases.push_back(plain_attention(dtype, BlockPattern::empty(100, 32)));
        cases.push_back(plain_attention(dtype, BlockPattern::full(1, 16)));
        AttentionCase padded = plain_attention(dtype, BlockPattern::full(130, 32));
        padded.attention.key_padding = true;
        padded.lengths = {0, 1};
        cases.push_back(padded);
        AttentionCase half = plain_attention(dtype, BlockPattern::full(300, 64));
        half.attention.key_padding = true;
        half.lengths = {70, 300};
        cases.push_back(half);
        for (std::size_t n = cases.size() - 6; n < cases.size(); ++n) {
            cases[n].attention.softmax = softmax;
        }
    }
    return cases;
}

}  // namespace spion
