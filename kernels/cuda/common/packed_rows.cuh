// Packed tiles: SPION_PACKED_ROWS block rows, past which the union of their gather blocks streams,
// each gather block with a bit a block row that says whether the row uses it. A warp's 16 rows lie
// in one block row. Where tiles are not packed, everything here is empty.
//   mma.sync   each warp skips the gather blocks that its own block row does not use:
//              GatherMask
//   wgmma      multiplies all 64 rows with all gather blocks; then each warp drops the scores of
//              those that its block row does not use (mask.cuh). With every stage the producer
//              hands over a word of bits: bit r * kGatherBlocksPerStep + j says that block row r
//              uses the step's gather block j.
#ifndef SPION_PACKED_ROWS_CUH
#define SPION_PACKED_ROWS_CUH

#include "kernels/cuda/common/attention_walk.cuh"
#include "kernels/cuda/common/contract.cuh"

#ifdef SPION_PACKED_ROWS
enum : int { kPackedRows = SPION_PACKED_ROWS };
enum : int { kBlockRows = kStationaryRows / kPackedRows };
static_assert(kBlockRows % 16 == 0, "a warp's rows lie in one block row");

// What a warp of mma.sync knows of its rows. It is one register, no more; the walk and the arguments
// have the rest.
struct GatherMask {
    unsigned window;  // bit i: the warp's rows use gather block 32 * k + i of the current 32

    __device__ __forceinline__ void read(const SpionAttentionArguments& args, const Walk& walk,
                                         int first) {
        const int index = first + lane_index();
        const BlockRowMask* bits =
            block_row_mask_table(args) + (walk.gather_blocks - gather_block_table(args));
        const unsigned word = index < walk.listed ? bits[index] : 0U;
        window = __ballot_sync(0xFFFFFFFFU, (word >> (16 * warp_index() / kBlockRows) & 1U) != 0);
    }
    // Steps are entered in order.
    __device__ __forceinline__ void enter(const SpionAttentionArguments& args, const Walk& walk,
                                          int step) {
        const int first = step * kGatherBlocksPerStep;
        if ((step > 0 || kMembers > 1) && first % 32 == 0) read(args, walk, first);
    }
    // Whether the warp's rows have the gather block of the step's rows [column, column + kColumns).
    __device__ __forceinline__ bool at(int step, int column) const {
        return (window >> ((step * kGatherBlocksPerStep + column / kGatherRows) & 31) & 1U) != 0;
    }
};

SPION_DEVICE GatherMask open_gather_mask(const SpionAttentionArguments& args, const Walk& walk) {
    GatherMask gather_mask;
    gather_mask.read(args, walk, 0);
    return gather_mask;
}

// Rows below L of the gather blocks that the warp's rows use: the n_i of ir/attention.h. Gather
// blocks ascend, so that only the last can reach beyond L.
SPION_DEVICE int elements_of(const SpionAttentionArguments& args, const Walk& walk,
                             GatherMask& gather_mask) {
    int rows = __popc(gather_mask.window) * kGatherRows;
    for (int first = 32; first < walk.listed; first += 32) {
        gather_mask.read(args, walk, first);
        rows += __popc(gather_mask.window) * kGatherRows;
    }
    const int last = walk.listed - 1;
    if (last >= 0) {
        const int beyond = (gather_block_at(walk, last) + 1) * kGatherRows - kStreamedLength;
        if ((gather_mask.window >> (last & 31) & 1U) != 0 && beyond > 0) rows -= beyond;
    }
    if (walk.listed > 32) gather_mask.read(args, walk, 0);
    return rows;
}

// Lane i gets the block row mask of gather block first + i of the list.
SPION_DEVICE unsigned read_block_row_masks(const SpionAttentionArguments& args, const Walk& walk,
                                           int first) {
    const int index = first + lane_index();
    const BlockRowMask* bits =
        block_row_mask_table(args) + (walk.gather_blocks - gather_block_table(args));
    return index < walk.listed ? bits[index] : 0U;
}

// The word of the step whose first gather block is `first`; window: read_block_row_masks(first -
// first % 32).
SPION_DEVICE unsigned block_row_mask_of_step(unsigned window, int first) {
    const unsigned bits = __shfl_sync(0xFFFFFFFFU, window, (first + lane_index()) & 31);
    unsigned word = 0;
#pragma unroll
    for (int row = 0; row < kPackedRows; ++row) {
        const bool has_block = lane_index() < kGatherBlocksPerStep && (bits >> row & 1U) != 0;
        word |= __ballot_sync(0xFFFFFFFFU, has_block) << (row * kGatherBlocksPerStep);
    }
    return word;
}

// n_i of each block row's rows (ir/attention.h). Gather blocks ascend, so that only the last can
// reach beyond L. start: read_block_row_masks(args, walk, 0).
SPION_DEVICE uint4 elements_of_rows(const SpionAttentionArguments& args, const Walk& walk,
                                    unsigned start) {
    unsigned elements[4] = {0, 0, 0, 0};
    for (int first = 0; first < walk.listed; first += 32) {
        const unsigned bits = first == 0 ? start : read_block_row_masks(args, walk, first);
        const int gather_block = first == 0 ? walk.window : read_window(walk, first);
        const int beyond = max(0, (gather_block + 1) * kGatherRows - kStreamedLength);
#pragma unroll
        for (int row = 0; row < kPackedRows; ++row) {
            const bool has_block = (bits >> row & 1U) != 0;
            elements[row] += __popc(__ballot_sync(0xFFFFFFFFU, has_block)) * kGatherRows;
            elements[row] -= __reduce_add_sync(0xFFFFFFFFU, has_block ? (unsigned)beyond : 0U);
        }
    }
    return make_uint4(elements[0], elements[1], elements[2], elements[3]);
}

// The bits of a step's word that belong to the block row of this warp's rows.
SPION_DEVICE unsigned gather_mask_of_warp(unsigned word) {
    const int row = warp_index() % 4 * 16 / kBlockRows;
    return word >> (row * kGatherBlocksPerStep) & ((1U << kGatherBlocksPerStep) - 1);
}

#else
enum : int { kPackedRows = 1 };

struct GatherMask {
    __device__ __forceinline__ void enter(const SpionAttentionArguments&, const Walk&, int) {}
    __device__ __forceinline__ bool at(int, int) const { return true; }
};

SPION_DEVICE GatherMask open_gather_mask(const SpionAttentionArguments&, const Walk&) {
    return {};
}

SPION_DEVICE int elements_of(const SpionAttentionArguments&, const Walk& walk, const GatherMask&) {
    return walk.elements;
}

SPION_DEVICE unsigned read_block_row_masks(const SpionAttentionArguments&, const Walk&, int) {
    return 0;
}
SPION_DEVICE unsigned block_row_mask_of_step(unsigned, int) {
    return 0;
}
SPION_DEVICE uint4 elements_of_rows(const SpionAttentionArguments&, const Walk&, unsigned) {
    return make_uint4(0, 0, 0, 0);
}
SPION_DEVICE unsigned gather_mask_of_warp(unsigned) {
    return 0;
}
#endif

enum : bool { kPacked = kPackedRows > 1 };

// pruned_elements() of rows g and g + 8 of the warp. steps: from the item's first one on.
SPION_DEVICE void pruned_of_rows(int (&pruned)[2], const SpionAttentionArguments& args,
                                 const StepElements<false>& steps) {
    const Span spans[2] = {steps.mask.row_span(0), steps.mask.row_span(1)};
    int elements[2] = {0, 0};
    for (int i = lane_index() % 4; i < steps.listed; i += 4) {
#ifdef SPION_PACKED_ROWS
        const unsigned gather_mask =
            block_row_mask_table(args)[steps.gather_blocks - gather_block_table(args) + i];
        if ((gather_mask >> (16 * warp_index() / kBlockRows) & 1U) == 0) continue;
#endif
        const int from = (int)steps.gather_blocks[i] * kGatherRows,
                  end = min(from + kGatherRows, kStreamedLength);
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
        pruned[half] = pruned_elements(spans[half].end - spans[half].first, elements[half]);
    }
}

#endif
