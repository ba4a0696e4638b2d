// Packed tiles on sm_90a. A warpgroup's 64 rows are SPION_PACKED_ROWS block rows, past which the
// union of their granules streams. wgmma multiplies all rows with all of it; then each warp, whose
// 16 rows lie in one block row, drops the scores of granules that its block row does not use. With
// every stage the producer says who uses what. Where tiles are not packed this is nothing at all.
#ifndef SPION_HOPPER_PACKED_CUH
#define SPION_HOPPER_PACKED_CUH

#include "kernels/cuda/common/attention_walk.cuh"

// Bits of one granule in a step's word, per block row: bit r * kGranulesPerStep + j says that block
// row r uses the step's granule j.
#ifdef SPION_PACKED_ROWS
enum : int { kPackedRows = SPION_PACKED_ROWS };
static_assert(kStationaryRows == 64, "one warpgroup");
static_assert(kPackedRows <= 4 && kPackedRows * kGranulesPerStep <= 32);

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
    const int row = warp_index() % 4 * 16 / (kStationaryRows / kPackedRows);
    return word >> (row * kGranulesPerStep) & ((1U << kGranulesPerStep) - 1);
}

// Elements in columns of granules that `uses`, of uses_of_warp(), has not become `value`.
template <int kTiles>
SPION_DEVICE void set_unused(float (&elements)[kTiles][4], unsigned uses, float value) {
    constexpr int kGranuleTiles = kTiles / kGranulesPerStep;
#pragma unroll
    for (int granule = 0; granule < kGranulesPerStep; ++granule) {
        if ((uses >> granule & 1U) != 0) continue;
#pragma unroll
        for (int j = granule * kGranuleTiles; j < (granule + 1) * kGranuleTiles; ++j) {
#pragma unroll
            for (int i = 0; i < 4; ++i) elements[j][i] = value;
        }
    }
}
#else
enum : int { kPackedRows = 1 };

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
template <int kTiles>
SPION_DEVICE void set_unused(float (&)[kTiles][4], unsigned, float) {}
#endif

enum : bool { kPacked = kPackedRows > 1 };

#endif
