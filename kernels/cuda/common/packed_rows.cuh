// Packed tiles: SPION_PACKED_ROWS block rows, past which the union of their granules streams, each
// granule with a bit a block row that says whether the row uses it. A warp's 16 rows lie in one
// block row. Where tiles are not packed, everything here is empty.
//   mma.sync   each warp skips the granules that its own block row does not use: Uses
//   wgmma      multiplies all 64 rows with all granules; then each warp drops the scores of those
//              that its block row does not use (mask.cuh). With every stage the producer hands over
//              a word of bits: bit r * kGranulesPerStep + j says that block row r uses the step's
//              granule j.
#ifndef SPION_PACKED_ROWS_CUH
#define SPION_PACKED_ROWS_CUH

#include "kernels/cuda/common/attention_walk.cuh"
#include "kernels/cuda/common/contract.cuh"

#ifdef SPION_PACKED_ROWS
enum : int { kPackedRows = SPION_PACKED_ROWS };
enum : int { kBlockRows = kStationaryRows / kPackedRows };
static_assert(kBlockRows % 16 == 0, "a warp's rows lie in one block row");

// What a warp of mma.sync knows. One register, no more: what else it takes, the walk and the
// arguments have.
struct Uses {
    unsigned window;  // bit i: the warp's rows use granule 32 * k + i of the current 32

    __device__ __forceinline__ void read(const SpionAttentionArguments& args, const Walk& walk,
                                         int first) {
        const int index = first + lane_index();
        const UseBits* bits = use_table(args) + (walk.granules - granule_table(args));
        const unsigned word = index < walk.listed ? bits[index] : 0U;
        window = __ballot_sync(0xFFFFFFFFU, (word >> (16 * warp_index() / kBlockRows) & 1U) != 0);
    }
    // Steps are entered in order.
    __device__ __forceinline__ void enter(const SpionAttentionArguments& args, const Walk& walk,
                                          int step) {
        const int first = step * kGranulesPerStep;
        if ((step > 0 || kMembers > 1) && first % 32 == 0) read(args, walk, first);
    }
    // Of the step's rows [column, column + kColumns).
    __device__ __forceinline__ bool at(int step, int column) const {
        return (window >> ((step * kGranulesPerStep + column / kGranule) & 31) & 1U) != 0;
    }
};

SPION_DEVICE Uses open_uses(const SpionAttentionArguments& args, const Walk& walk) {
    Uses uses;
    uses.read(args, walk, 0);
    return uses;
}

// Rows below L of the granules that the warp's rows use: the n_i of ir/attention.h. Granules
// ascend, so that only the last can reach beyond L.
SPION_DEVICE int elements_of(const SpionAttentionArguments& args, const Walk& walk, Uses& uses) {
    int rows = __popc(uses.window) * kGranule;
    for (int first = 32; first < walk.listed; first += 32) {
        uses.read(args, walk, first);
        rows += __popc(uses.window) * kGranule;
    }
    const int last = walk.listed - 1;
    if (last >= 0) {
        const int beyond = (granule_at(walk, last) + 1) * kGranule - kLength;
        if ((uses.window >> (last & 31) & 1U) != 0 && beyond > 0) rows -= beyond;
    }
    if (walk.listed > 32) uses.read(args, walk, 0);
    return rows;
}

// Lane i: who uses granule first + i of the list.
SPION_DEVICE unsigned read_uses(const SpionAttentionArguments& args, const Walk& walk, int first) {
    const int index = first + lane_index();
    const UseBits* bits = use_table(args) + (walk.granules - granule_table(args));
    return index < walk.listed ? bits[index] : 0U;
}

// Of the step whose first granule is `first`, read_uses(first - first % 32).
SPION_DEVICE unsigned uses_of_step(unsigned window, int first) {
    const unsigned bits = __shfl_sync(0xFFFFFFFFU, window, (first + lane_index()) & 31);
    unsigned word = 0;
#pragma unroll
    for (int row = 0; row < kPackedRows; ++row) {
        const bool uses = lane_index() < kGranulesPerStep && (bits >> row & 1U) != 0;
        word |= __ballot_sync(0xFFFFFFFFU, uses) << (row * kGranulesPerStep);
    }
    return word;
}

// n_i of each block row's rows (ir/attention.h). Granules ascend, so that only the last can reach
// beyond L. start: read_uses(args, walk, 0).
SPION_DEVICE uint4 elements_of_rows(const SpionAttentionArguments& args, const Walk& walk,
                                    unsigned start) {
    unsigned elements[4] = {0, 0, 0, 0};
    for (int first = 0; first < walk.listed; first += 32) {
        const unsigned bits = first == 0 ? start : read_uses(args, walk, first);
        const int granule = first == 0 ? walk.window : read_window(walk, first);
        const int beyond = max(0, (granule + 1) * kGranule - kLength);
#pragma unroll
        for (int row = 0; row < kPackedRows; ++row) {
            const bool uses = (bits >> row & 1U) != 0;
            elements[row] += __popc(__ballot_sync(0xFFFFFFFFU, uses)) * kGranule;
            elements[row] -= __reduce_add_sync(0xFFFFFFFFU, uses ? (unsigned)beyond : 0U);
        }
    }
    return make_uint4(elements[0], elements[1], elements[2], elements[3]);
}

// Of a step's word, the bits of the block row that this warp's rows lie in.
SPION_DEVICE unsigned uses_of_warp(unsigned word) {
    const int row = warp_index() % 4 * 16 / kBlockRows;
    return word >> (row * kGranulesPerStep) & ((1U << kGranulesPerStep) - 1);
}

#else
enum : int { kPackedRows = 1 };

struct Uses {
    __device__ __forceinline__ void enter(const SpionAttentionArguments&, const Walk&, int) {}
    __device__ __forceinline__ bool at(int, int) const { return true; }
};

SPION_DEVICE Uses open_uses(const SpionAttentionArguments&, const Walk&) {
    return {};
}

SPION_DEVICE int elements_of(const SpionAttentionArguments&, const Walk& walk, const Uses&) {
    return walk.elements;
}

SPION_DEVICE unsigned read_uses(const SpionAttentionArguments&, const Walk&, int) {
    return 0;
}
SPION_DEVICE unsigned uses_of_step(unsigned, int) {
    return 0;
}
SPION_DEVICE uint4 elements_of_rows(const SpionAttentionArguments&, const Walk&, unsigned) {
    return make_uint4(0, 0, 0, 0);
}
SPION_DEVICE unsigned uses_of_warp(unsigned) {
    return 0;
}
#endif

enum : bool { kPacked = kPackedRows > 1 };

// Elements that rows g and g + 8 of the warp keep and the pattern does not have: what counts as a
// score of 0. steps: from the item's first one on.
SPION_DEVICE void pruned_of_rows(int (&pruned)[2], const SpionAttentionArguments& args,
                                 const StepElements<false>& steps) {
    const Span spans[2] = {steps.mask.row_span(0), steps.mask.row_span(1)};
    int elements[2] = {0, 0};
    for (int i = lane_index() % 4; i < steps.listed; i += 4) {
#ifdef SPION_PACKED_ROWS
        const unsigned uses = use_table(args)[steps.granules - granule_table(args) + i];
        if ((uses >> (16 * warp_index() / kBlockRows) & 1U) == 0) continue;
#endif
        const int from = (int)steps.granules[i] * kGranule, end = min(from + kGranule, kLength);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            elements[half] += max(0, min(end, spans[half].end) - max(from, spans[half].first));
        }
    }
    __syncwarp();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        elements[half] += __shfl_xor_sync(0xFFFFFFFFU, elements[half], 1);
        elements[half] += __shfl_xor_sync(0xFFFFFFFFU, elements[half], 2);
        pruned[half] = spans[half].end - spans[half].first - elements[half];
    }
}

#endif
