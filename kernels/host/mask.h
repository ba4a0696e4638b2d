// Which elements of a block count, for all host bodies. Today they are kept out by key padding, by
// the ragged edge at L, and in packed tiles by the bits that say which block row uses a gather
// block. Bodies gather only rows that count, so that no score has to be masked.
#pragma once

#include "kernels/attention_arguments.h"
#include "kernels/host/vector.h"

extern "C" {
extern const int kLength;      // L
extern const int kGatherRows;  // streamed rows that are adjacent in memory
extern const int kSoftmax;     // a SpionSoftmax
extern const bool kKeyPadding;
}

// Keys of the sample that are not padded.
SPION_INLINE int key_limit(const SpionAttentionArguments& args, int batch) {
    return kKeyPadding ? args.lengths[batch] : kLength;
}

// Rows of the gather block that starts at row `first` which lie below `limit`.
SPION_INLINE int rows_below(long long first, int limit) {
    const long long left = limit - first;
    return static_cast<int>(left < 0 ? 0 : left < kGatherRows ? left : kGatherRows);
}

// Elements of a row that count with a score of 0, when `elements` of the pattern are the row's.
SPION_INLINE long long pruned_elements(long long elements) {
    return kSoftmax == SPION_SOFTMAX_PRUNED_ZERO ? kLength - elements : 0;
}
