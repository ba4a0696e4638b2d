// Which elements of a block count, for all host bodies. Today they are kept out by key padding, by
// the ragged edge at L, in packed tiles by the bits that say which block row uses a gather block,
// and by the element mask. Bodies gather only rows that count for some lane, so that scores are
// masked where the element mask cuts through a gather block, and nowhere else.
#pragma once

#include "kernels/attention_arguments.h"
#include "kernels/host/tile.h"

extern "C" {
extern const int kLength;      // L, of Q
extern const int kKeyLength;   // Lk, of K and V
extern const int kGatherRows;  // streamed rows that are adjacent in memory
extern const int kSoftmax;     // a SpionSoftmax
extern const bool kKeyPadding;
extern const int kMask;               // a SpionMask
extern const bool kVarlen;            // whether samples are sequences that lie end to end
extern const bool kKeyStarts;         // whether keys are sequences of their own
extern const bool kSequencePatterns;  // whether each of them has patterns of its own
extern const bool kBlocksAreFull;     // whether the mask drops nothing of what the walk has
}

// Where sequences begin on the side of keys, or of queries.
SPION_INLINE const int* starts_of(const SpionAttentionArguments& args, bool of_keys) {
    return kKeyStarts && of_keys ? args.key_starts : args.starts;
}

// The row of the sample's first position on a side.
SPION_INLINE int sequence_start(const SpionAttentionArguments& args, bool of_keys, int batch) {
    return kVarlen ? starts_of(args, of_keys)[batch] : 0;
}

// Positions that the sample has on a side.
SPION_INLINE int positions_of(const SpionAttentionArguments& args, bool of_keys, int batch) {
    const int length = of_keys ? kKeyLength : kLength;
    if (!kVarlen) {
        return length;
    }
    const int* const starts = starts_of(args, of_keys);
    const int own = starts[batch + 1] - starts[batch];
    return own < length ? own : length;
}

// Keys of the sample that are its own and not padded.
SPION_INLINE int key_limit(const SpionAttentionArguments& args, int batch) {
    return kKeyPadding ? args.lengths[batch] : positions_of(args, true, batch);
}

// Query i stands beside key i + diagonal: sequences are aligned at their ends.
SPION_INLINE int diagonal_of(const SpionAttentionArguments& args, int batch) {
    return kKeyStarts ? positions_of(args, true, batch) - positions_of(args, false, batch)
                      : kKeyLength - kLength;
}

// Rows of the gather block that starts at row `first` which lie below `limit`.
SPION_INLINE int rows_below(long long first, int limit) {
    const long long left = limit - first;
    return static_cast<int>(left < 0 ? 0 : left < kGatherRows ? left : kGatherRows);
}

// How many elements count with a score of 0, as the softmax makes of pruned ones, in a row that keeps
// `kept` elements, `elements` of them in the pattern.
SPION_INLINE long long pruned_elements(long long kept, long long elements) {
    return kSoftmax == SPION_SOFTMAX_PRUNED_ZERO ? kept - elements : 0;
}

// Streamed positions [first, end).
struct Span {
    int first, end;
};

// Positions of the stationary side, and of the streamed one.
SPION_INLINE int stationary_length(bool rows_are_keys) {
    return rows_are_keys ? kKeyLength : kLength;
}
SPION_INLINE int streamed_length(bool rows_are_keys) {
    return rows_are_keys ? kLength : kKeyLength;
}

// What a stationary row of a sample keeps; rows beyond the last one have what that has.
SPION_INLINE Span span_of_row(const SpionAttentionArguments& args, bool rows_are_keys, int batch,
                              long long row) {
    const int length = stationary_length(rows_are_keys);
    const int last = static_cast<int>(row < length ? row : length - 1);
    if (kMask == SPION_MASK_CAUSAL) {
        // Query i stands beside key i + kKeyLength - kLength: sequences are aligned at their ends.
        const int diagonal = kKeyLength - kLength;
        const int first = last - diagonal, end = last + diagonal + 1;
        return rows_are_keys ? Span{first > 0 ? first : 0, kLength} : Span{0, end > 0 ? end : 0};
    }
    if (kMask == SPION_MASK_SPANS) {
        const int* const pair = (rows_are_keys ? args.key_spans : args.query_spans) +
                                (static_cast<long long>(batch) * length + last) * 2;
        return {pair[0], pair[1]};
    }
    return {0, streamed_length(rows_are_keys)};
}

// One span a lane, and what all of a tile's rows keep, and what any of them does: neither end of a
// span decreases from row to row.
struct TileSpans {
    alignas(64) int first[kMaxStationaryRows], end[kMaxStationaryRows];
    Span all, any;
};

SPION_INLINE void load_spans(const SpionAttentionArguments& args, bool rows_are_keys, int batch,
                             long long first_row, TileSpans& spans) {
    if (kMask == SPION_MASK_NONE) {
        return;
    }
    for (int row = 0; row < kStationaryRows; ++row) {
        const Span span = span_of_row(args, rows_are_keys, batch, first_row + row);
        spans.first[row] = span.first;
        spans.end[row] = span.end;
    }
    spans.all = {spans.first[kStationaryRows - 1], spans.end[0]};
    spans.any = {spans.first[0], spans.end[kStationaryRows - 1]};
}

// Scores [rows][lanes] at positions from `from` on: what a lane's row drops becomes minus infinity,
// whose probability is 0.
SPION_INLINE void mask_scores(const TileSpans& spans, long long from, int rows, float* scores) {
    if (kMask == SPION_MASK_NONE || kBlocksAreFull ||
        (from >= spans.all.first && from + rows <= spans.all.end)) {
        return;
    }
    for (int n = 0; n < rows; ++n) {
        const Ints position = Ints(static_cast<int>(from) + n);
        for (int lane = 0; lane < kStationaryRows; lane += kLanes) {
            float* const at = scores + n * kStationaryRows + lane;
            const Ints kept =
                (position >= load(spans.first + lane)) & (position < load(spans.end + lane));
            store(at, kept ? load(at) : Floats(-__builtin_inff()));
        }
    }
}

// LSE in base 2, or what makes every probability of a row without any element 0.
SPION_INLINE float probability_shift(float lse) {
    const bool empty = kMask != SPION_MASK_NONE && lse == -__builtin_inff();
    return empty ? __builtin_inff() : lse * kLog2E;
}
