// The element mask (ir/attention.h), for all CUDA bodies: where a stationary row keeps one interval
// of streamed positions, and which of a warp's scores lie outside. The same for query rows, past
// which keys stream, and for key rows, past which queries do. Where the operation has no mask,
// nothing here leaves a trace.
#ifndef SPION_ELEMENT_MASK_CUH
#define SPION_ELEMENT_MASK_CUH

#include "kernels/attention_arguments.h"
#include "kernels/cuda/common/contract.cuh"
#include "kernels/cuda/common/sequences.cuh"
#include "kernels/cuda/common/tile.cuh"

enum : bool {
    kElementsMasked = (int)kMask != SPION_MASK_NONE,
    kSpansMasked = (int)kMask == SPION_MASK_SPANS
};

// Streamed positions [first, end).
struct Span {
    int first, end;
};

// The spans of a sample's rows, [stationary length, 2], for kSpansMasked.
template <bool kRowsAreKeys>
SPION_DEVICE const int* sample_spans(const SpionAttentionArguments& args, int batch) {
    if constexpr (!kSpansMasked) return nullptr;
    return (kRowsAreKeys ? args.key_spans : args.query_spans) +
           (long long)batch * kStationaryLength * 2;
}

// What a stationary row keeps. Rows beyond the last one have what that has.
template <bool kRowsAreKeys>
SPION_DEVICE Span span_of_row(const int* spans, int row) {
    row = min(row, kStationaryLength - 1);
    if constexpr (kSpansMasked) return {spans[2 * row], spans[2 * row + 1]};
    if constexpr (kDiagonal != 0) row += kRowsAreKeys ? -(int)kDiagonal : (int)kDiagonal;
    // Of more queries than keys the first keep nothing, of more keys than queries all the first.
    if constexpr (kDiagonal != 0) row = max(row, kRowsAreKeys ? 0 : -1);
    return kRowsAreKeys ? Span{row, kLength} : Span{0, row + 1};
}

// What any row of a tile of kRows keeps: neither end of a span decreases from row to row.
template <bool kRowsAreKeys, int kRows>
SPION_DEVICE Span span_of_tile(const SpionAttentionArguments& args, int batch, int first_row) {
    const int* const spans = sample_spans<kRowsAreKeys>(args, batch);
    return {span_of_row<kRowsAreKeys>(spans, first_row).first,
            span_of_row<kRowsAreKeys>(spans, first_row + kRows - 1).end};
}

// The mask of a warp's 16 stationary rows. Spans are fetched where they are needed, on the diagonal
// and at other edges: two registers more are what bodies can spare.
template <bool kRowsAreKeys>
struct ElementMask {
    const int* spans;
    int warp_row;  // the first of the 16

    // Of rows g (0) and g + 8 (1) of the warp.
    __device__ __forceinline__ Span row_span(int half) const {
        return span_of_row<kRowsAreKeys>(spans, warp_row + lane_index() / 4 + 8 * half);
    }
    // Whether all rows keep [from, from + count).
    __device__ __forceinline__ bool is_full(int from, int count) const {
        return from >= span_of_row<kRowsAreKeys>(spans, warp_row + 15).first &&
               from + count <= span_of_row<kRowsAreKeys>(spans, warp_row).end;
    }
};

template <bool kRowsAreKeys>
SPION_DEVICE ElementMask<kRowsAreKeys> element_mask(const SpionAttentionArguments& args, int batch,
                                                    int warp_row) {
    return {sample_spans<kRowsAreKeys>(args, batch), warp_row};
}

// Elements that the mask drops become `value`, of tiles kFirst to kEnd of an accumulator whose
// columns are kRuns runs of adjacent streamed positions, run r from position_of(r) on.
template <int kRuns, int kFirst, int kEnd, bool kRowsAreKeys, int kTiles, typename PositionOf>
SPION_DEVICE void mask_elements(float (&elements)[kTiles][4], const ElementMask<kRowsAreKeys>& mask,
                                const PositionOf& position_of, float value) {
    if constexpr (kElementsMasked && !kBlocksAreFull) {
        constexpr int kRunTiles = kTiles / kRuns;
        static_assert(kTiles % kRuns == 0);
#pragma unroll
        for (int run = 0; run < kRuns; ++run) {
            if ((run + 1) * kRunTiles <= kFirst || run * kRunTiles >= kEnd) continue;
            const int from = position_of(run);
            if (mask.is_full(from, 8 * kRunTiles)) continue;
            const Span spans[2] = {mask.row_span(0), mask.row_span(1)};
#pragma unroll
            for (int j = 0; j < kRunTiles; ++j) {
                const int tile = run * kRunTiles + j;
                if (tile < kFirst || tile >= kEnd) continue;
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int position = from + 8 * j + lane_index() % 4 * 2 + i % 2;
                    if (position < spans[i / 2].first || position >= spans[i / 2].end) {
                        elements[tile][i] = value;
                    }
                }
            }
        }
    }
}

#endif
