// Which of the granules that stream past a tile a warp multiplies. A packed tile has
// SPION_PACKED_ROWS block rows and streams the union of their granules; each warp, whose 16 rows
// lie in one of them, skips what its own block row does not use. Where tiles are not packed this is
// nothing at all.
#ifndef SPION_PACKED_ROWS_CUH
#define SPION_PACKED_ROWS_CUH

#include "kernels/cuda/common/attention_walk.cuh"

#ifdef SPION_PACKED_ROWS

enum : bool { kPacked = true };
enum : int { kBlockRows = kStationaryRows / SPION_PACKED_ROWS };
static_assert(kBlockRows % 16 == 0, "a warp's rows lie in one block row");
static_assert(kGranule % kColumns == 0, "what is multiplied at once lies in one granule");

// One register, no more: what else it takes, the walk and the arguments have.
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
        if (step > 0 && first % 32 == 0) read(args, walk, first);
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

#else

enum : bool { kPacked = false };

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

#endif

#endif
