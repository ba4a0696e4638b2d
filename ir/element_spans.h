// Masks of single elements whose sizes are said when a kernel is launched: the rules that people
// state, and the spans that kernels read. All of them, and every conjunction of them, let a query
// keep the keys of one interval, whose two ends never decrease from one query to the next; so a key
// is kept by an interval of queries too. Kernels therefore know intervals alone, and a new rule of
// this kind compiles nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ir/attention.h"
#include "ir/block_pattern.h"
#include "ir/head_patterns.h"

namespace spion {

// Query i of sample b keeps key j when all rules that are given say so. Query i stands beside key
// i' = i + Lk - L (Attention::diagonal).
struct MaskRules {
    bool causal = false;  // j <= i'
    std::optional<int> left,
        right;                   // i' - left <= j <= i' + right: a sliding window, each at least 0
    std::vector<int> documents;  // [B, L], ascending: documents[b, i] == key_documents[b, j]
    std::vector<int> key_documents;  // [B, Lk], ascending; empty where Lk is L: documents
    std::vector<int> prefixes;       // [B] in [0, Lk], with causal: keys below it are kept by all
    std::vector<int> query_lengths;  // [B] in [0, L]: queries from it on are padded, and keep none
    // [B] in [0, L], of Attention::varlen: neither queries nor keys from it on are the sequence's
    std::vector<int> sequence_lengths = {};
    // [B] in [0, Lk], of Attention::key_starts: the same of keys alone, and sequence_lengths then of
    // queries alone. Query i of a sequence of l queries and k keys stands beside key i + k - l.
    std::vector<int> key_sequence_lengths = {};

    friend bool operator==(const MaskRules&, const MaskRules&) = default;
};

// Pairs of a first position and an end, which is not before it; neither ever decreases within a
// sample.
struct ElementSpans {
    std::vector<int> queries;  // [B, L, 2] the keys that a query keeps
    std::vector<int> keys;     // [B, Lk, 2] the queries that keep a key
};

// " causal window=3,0 documents=[..]": the rules that are given; "" where none is. A side of the
// window that is left out is -1.
std::string to_text(const MaskRules& rules);

// Throws UserError for sizes that do not fit the batch, windows below 0, ids that decrease, and a
// prefix without causal. key_length: Lk; 0: L.
void check(const MaskRules& rules, std::int64_t batch, std::int64_t length,
           std::int64_t key_length = 0);

// Checks the rules.
ElementSpans element_spans(const MaskRules& rules, std::int64_t batch, std::int64_t length,
                           std::int64_t key_length = 0);

// Whether the patterns are as many as the attention's, of its queries and keys.
bool fits(const HeadPatterns& patterns, const Attention& attention);
// Throws UserError when they are not.
void require_fit(const HeadPatterns& patterns, const Attention& attention);
// "L=90", or "L=90 kv_length=40".
std::string lengths_text(std::int64_t length, std::int64_t key_length);

// The pattern less the blocks of which the mask keeps nothing, whatever the launch says: what a
// kernel has to visit.
BlockPattern visited_blocks(const BlockPattern& pattern, const Attention& attention);
HeadPatterns visited_blocks(const HeadPatterns& patterns, const Attention& attention);

}  // namespace spion
