// Masks of single elements whose sizes are said when a kernel is launched: the rules that people
// state, and the spans that kernels read. All of them, and every conjunction of them, let a query
// keep the keys of one interval, whose two ends never decrease from one query to the next; so a key
// is kept by an interval of queries too. Kernels therefore know intervals alone, and a new rule of
// this kind compiles nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "ir/attention.h"
#include "ir/block_pattern.h"

namespace spion {

// Query i of sample b keeps key j when all rules that are given say so.
struct MaskRules {
    bool causal = false;  // j <= i
    std::optional<int> left,
        right;                   // i - left <= j <= i + right: a sliding window, each at least 0
    std::vector<int> documents;  // [B, L], ascending: documents[b, i] == documents[b, j]
    std::vector<int> prefixes;   // [B] in [0, L], with causal: keys below it are kept by all
    std::vector<int> query_lengths;  // [B] in [0, L]: queries from it on are padded, and keep none

    friend bool operator==(const MaskRules&, const MaskRules&) = default;
};

// Pairs of a first position and an end, both in [0, L] and neither ever decreasing within a sample.
struct ElementSpans {
    std::vector<int> queries;  // [B, L, 2] the keys that a query keeps
    std::vector<int> keys;     // [B, L, 2] the queries that keep a key
};

// Throws UserError for sizes that do not fit the batch, windows below 0, ids that decrease, and a
// prefix without causal.
void check(const MaskRules& rules, std::int64_t batch, std::int64_t length);

// Checks the rules.
ElementSpans element_spans(const MaskRules& rules, std::int64_t batch, std::int64_t length);

// The pattern less the blocks of which the mask keeps nothing, whatever the launch says: what a
// kernel has to visit.
BlockPattern visited_blocks(const BlockPattern& pattern, const Attention& attention);

}  // namespace spion
