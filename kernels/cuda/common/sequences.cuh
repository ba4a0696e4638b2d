// Where a sample's positions lie, for all CUDA bodies: in tensors [B, H, L, D], or, where samples are
// sequences that lie end to end (ir/attention.h: varlen), in [H, T, D]. What lies beyond a sequence's
// end is another one's: spans drop it from every sum, so that bodies have to know its length only
// where they read or write rows. LSE and delta are [B, H, L] all the
// same, without what lies beyond a sequence.
#ifndef SPION_SEQUENCES_CUH
#define SPION_SEQUENCES_CUH

#include "kernels/attention_arguments.h"
#include "kernels/cuda/common/contract.cuh"

// Where sequences begin on the side of keys, or of queries.
template <bool kOfKeys>
SPION_DEVICE const int* starts_of(const SpionAttentionArguments& args) {
    if constexpr (kKeyStarts && kOfKeys) return args.key_starts;
    return args.starts;
}

// The row of the sample's first position on a side.
template <bool kOfKeys>
SPION_DEVICE int sequence_start(const SpionAttentionArguments& args, int batch) {
    if constexpr (kVarlen) return starts_of<kOfKeys>(args)[batch];
    return 0;
}

// Positions that the sample has of `length` on a side.
template <bool kOfKeys>
SPION_DEVICE int positions_of(const SpionAttentionArguments& args, int batch, int length) {
    if constexpr (kVarlen) {
        const int* const starts = starts_of<kOfKeys>(args);
        return min(length, starts[batch + 1] - starts[batch]);
    }
    return length;
}

// For the copy engine: the row of a streamed position and the batch, in maps [B, H, L, D] or, of
// sequences, [1, H, T, D]. Positions from `length` on are asked for to get zeros.
SPION_DEVICE int row_in_map(int start, int position, int length) {
    constexpr int kBeyondAll = 1 << 30;
    if constexpr (kVarlen) return position < length ? start + position : kBeyondAll;
    return position;
}
SPION_DEVICE int batch_in_map(int batch) {
    return kVarlen ? 0 : batch;
}

SPION_DEVICE int query_limit(const SpionAttentionArguments& args, int batch) {
    return positions_of<false>(args, batch, kLength);
}
// Keys that the sample has, padded ones among them.
SPION_DEVICE int key_count(const SpionAttentionArguments& args, int batch) {
    return positions_of<true>(args, batch, kKeyLength);
}

// Query i stands beside key i + diagonal: sequences are aligned at their ends.
enum : int { kDiagonal = (int)kKeyLength - (int)kLength };
SPION_DEVICE int diagonal_of(const SpionAttentionArguments& args, int batch) {
    if constexpr (kKeyStarts) return key_count(args, batch) - query_limit(args, batch);
    return kDiagonal;
}

#endif
