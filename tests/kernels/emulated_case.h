// One case of the emulated attention kernels, and what changes it.
#pragma once

#include <cstdint>

#include "ir/attention.h"

namespace spion {

// One compiled set of the three attention kernels; the walk is the test's.
struct EmulatedCase {
    const char* name;
    DType dtype;
    int heads, head_dim;
    std::int64_t length;
    int block, stationary_rows, streamed_rows, gather_rows, stages;
    SoftmaxKind softmax;
    bool key_padding;
    ElementMask mask = ElementMask::kNone;
    int kv_heads = 0;            // 0: as many as heads
    std::int64_t kv_length = 0;  // 0: as many as queries
    int patterns = 1;
    float dropout = 0.0F, softcap = 0.0F;
    bool alibi = false, sink = false;
    int value_dim = 0;    // 0: head_dim
    bool varlen = false;  // of three sequences
    int relative_bias = 0;
    const char* score = "";
    int sequence_patterns = 0;  // of varlen, each with `patterns`; 0: the same for all
    bool key_starts = false;    // of varlen, with sequences of keys

    int pattern_count() const { return patterns * (varlen && sequence_patterns > 0 ? 3 : 1); }
    // Whether kernels find a tile of a sequence, and its walk, by number.
    bool by_number() const { return varlen && (patterns == 1 || sequence_patterns > 0); }
    int bias_entries() const { return relative_bias == 0 ? 0 : 2 * relative_bias + 1; }
    int values() const { return value_dim == 0 ? head_dim : value_dim; }
    int batch() const { return key_padding || varlen ? 3 : 1; }
    // That sample b has: sequences of all of L, of few positions and of most of L.
    std::int64_t positions(int b) const {
        return !varlen || b == 0 ? length : b == 1 ? 3 : length - 13;
    }
    // The same of keys: few, none and all of them where they are sequences of their own.
    std::int64_t key_positions(int b) const {
        if (!key_starts) return varlen ? positions(b) : keys();
        return b == 0 ? keys() / 3 : b == 1 ? 0 : keys();
    }
    // The row of its first position, where sequences lie end to end.
    std::int64_t start(int b, bool of_keys = false) const {
        std::int64_t rows = 0;
        for (int n = 0; n < b; ++n) rows += of_keys ? key_positions(n) : positions(n);
        return rows;
    }
    std::int64_t keys() const { return kv_length == 0 ? length : kv_length; }
};

// The case with another dimension of V and O.
inline EmulatedCase with_values(int value_dim, EmulatedCase c) {
    c.value_dim = value_dim;
    return c;
}

// The case of sequences that lie end to end.
inline EmulatedCase with_sequences(EmulatedCase c) {
    c.varlen = true;
    return c;
}

// The same with patterns of each sequence's own.
inline EmulatedCase with_own_patterns(EmulatedCase c) {
    c.varlen = true;
    c.sequence_patterns = c.batch();
    return c;
}

// Sequences end to end of queries, and others of keys.
inline EmulatedCase with_key_sequences(EmulatedCase c) {
    c.varlen = c.key_starts = true;
    return c;
}

// The case with a bias by relative position up to `reach`.
inline EmulatedCase with_bias(int reach, EmulatedCase c) {
    c.relative_bias = reach;
    return c;
}

// The case with an expression of scores.
inline EmulatedCase with_score(const char* score, EmulatedCase c) {
    c.score = score;
    return c;
}

}  // namespace spion
