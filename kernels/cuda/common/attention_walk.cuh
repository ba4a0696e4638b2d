// What one thread block computes: a work item and the granules that stream past it.
#ifndef SPION_ATTENTION_WALK_CUH
#define SPION_ATTENTION_WALK_CUH

#include "kernels/attention_arguments.h"
#include "kernels/cuda/common/contract.cuh"
#include "kernels/cuda/common/heads.cuh"
#include "kernels/cuda/common/mask.cuh"
#include "kernels/cuda/common/pipeline.cuh"
#include "kernels/cuda/common/tile_copy.cuh"

enum : int { kGranulesPerStep = kStreamedRows / kGranule };
enum : int { kTileBytes = kStreamedRows * kRowBytes };
enum : int { kStationaryBytes = kStationaryRows * kRowBytes };

static_assert(kGranule % 16 == 0 && kStreamedRows % kGranule == 0);
static_assert(32 % kGranulesPerStep == 0, "a step's granules lie within one window");
static_assert(kColumns % 16 == 0 && kStreamedRows % kColumns == 0);

// Where the walk's tables come from: the arguments (tier 0), or the source (tier 1). The source
// then has, ahead of this file, SPION_BAKED_TABLES; kTiles; kListed and kSteps, the granules and
// steps of every work item, -1 where they differ; GranuleIndex and, of packed tiles, UseBits, the
// types of kGranules and kUses; and the tables. The first two are read by whole blocks, so they lie
// in constant memory; lanes read granules side by side, which is what global memory is for.
#ifdef SPION_BAKED_TABLES
SPION_DEVICE int tile_count(const SpionAttentionArguments&) {
    return kTiles;
}
SPION_DEVICE int tile_at(const SpionAttentionArguments&, int place) {
    return kOrder[place];
}
SPION_DEVICE int offset_at(const SpionAttentionArguments&, int place) {
    if constexpr (kListed >= 0) return place * kListed;
    return kOffsets[place];
}
SPION_DEVICE const GranuleIndex* granule_table(const SpionAttentionArguments&) {
    return kGranules;
}
#ifdef SPION_PACKED_ROWS
SPION_DEVICE const UseBits* use_table(const SpionAttentionArguments&) {
    return kUses;
}
#endif
#else
using GranuleIndex = int;
enum : int { kListed = -1, kSteps = -1 };
SPION_DEVICE int tile_count(const SpionAttentionArguments& args) {
    return args.tiles;
}
SPION_DEVICE int tile_at(const SpionAttentionArguments& args, int place) {
    return args.order[place];
}
SPION_DEVICE int offset_at(const SpionAttentionArguments& args, int place) {
    return args.offsets[place];
}
SPION_DEVICE const GranuleIndex* granule_table(const SpionAttentionArguments& args) {
    return args.granules;
}
using UseBits = unsigned;
SPION_DEVICE const UseBits* use_table(const SpionAttentionArguments& args) {
    return args.uses;
}
#endif

struct WorkItem {
    int batch, head;
    int place;      // in TileProgram::order
    int first_row;  // of the stationary tile
    long long row;  // of [B, H, L]: index of row 0 of this (batch, head)
};

// The one at `place` of pair b * kItemHeads + h.
SPION_DEVICE WorkItem work_item(const SpionAttentionArguments& args, unsigned pair, int place) {
    return {(int)(pair / kItemHeads), (int)(pair % kItemHeads), place,
            tile_at(args, place) * kStationaryRows, (long long)pair * kLength};
}

SPION_DEVICE WorkItem work_item(const SpionAttentionArguments& args, unsigned item) {
    const unsigned tiles = (unsigned)tile_count(args);
    const unsigned pair = item / tiles;
    return work_item(args, pair, (int)(item - pair * tiles));
}

// The item as its member's rows stream: with the member's query head, and its rows of LSE and delta.
SPION_DEVICE WorkItem member_item(const WorkItem& work, int member) {
    if constexpr (kMembers == 1) return work;
    const int head = query_head(work.head, member);
    return {work.batch, head, work.place, work.first_row,
            ((long long)work.batch * kHeads + head) * kLength};
}

// Which member's step of the walk, of `walked` steps, is step `step` of an item.
struct MemberStep {
    int member, step;
};
SPION_DEVICE MemberStep member_step(int step, int walked) {
    if constexpr (kMembers == 1) return {0, step};
    return {step / walked, step % walked};
}

// The granules of a work item as a sequence of rows, granule after granule. Granules that start at
// or beyond the limit are cut off; as granules ascend, rows of the sequence that are past the limit
// (or past L) are then at its end.
struct Walk {
    const GranuleIndex* granules;  // [listed]
    int listed;                    // granules of the work item
    int valid;                     // rows of the sequence below the limit
    int elements;                  // rows of the uncut sequence below L: the n_i of ir/attention.h
    int window;                    // lane i holds granule 32 * k + i of the current 32

    // Steps of kStreamedRows rows.
    __device__ __forceinline__ int steps() const {
        if constexpr (kSteps >= 0) return kSteps;
        return (valid + kStreamedRows - 1) / kStreamedRows;
    }
};

SPION_DEVICE int read_window(const Walk& walk, int first) {
    const int index = first + lane_index();
    return index < walk.listed ? walk.granules[index] : 0;
}

// Rows below `limit` of a sequence of `count` granules whose last is `last`.
SPION_DEVICE int rows_below(int limit, int count, int last) {
    return count == 0 ? 0 : (count - 1) * kGranule + min(kGranule, limit - last * kGranule);
}

SPION_DEVICE int granule_at(const Walk& walk, int index) {
    if (walk.listed <= 32) return __shfl_sync(0xFFFFFFFFU, walk.window, index & 31);
    return walk.granules[index];
}

// Granules that start below `limit`: a prefix of the list.
SPION_DEVICE int granules_below(const Walk& walk, int limit) {
    int count = 0;
    for (int first = 0; first < walk.listed; first += 32) {
        const int granule = first == 0 ? walk.window : read_window(walk, first);
        const bool below = first + lane_index() < walk.listed && granule * kGranule < limit;
        const int here = __popc(__ballot_sync(0xFFFFFFFFU, below));
        count += here;
        if (here < 32) break;
    }
    return count;
}

// Starts reading the list of a work item. Nothing waits for it before measure_walk, so that other
// loads can be under way at the same time.
SPION_DEVICE Walk open_walk(const SpionAttentionArguments& args, int place) {
    const int first = offset_at(args, place);
    Walk walk;
    walk.listed = offset_at(args, place + 1) - first;
    walk.granules = granule_table(args) + first;
    walk.window = read_window(walk, 0);
    walk.elements = 0;
    walk.valid = 0;
    return walk;
}

// Counts the rows of the walk.
SPION_DEVICE void measure_walk(Walk& walk, int limit) {
    if (walk.listed > 0) {
        walk.elements = rows_below(kLength, walk.listed, granule_at(walk, walk.listed - 1));
        walk.valid = walk.elements;
    }
    if (limit < kLength) {
        const int count = granules_below(walk, limit);
        walk.valid = count == 0 ? 0 : rows_below(limit, count, granule_at(walk, count - 1));
    }
}

// Cuts off granules of which no row of the tile keeps anything: at the front here, at the end by the
// limit that it returns for measure_walk, which is at most `limit`.
template <bool kRowsAreKeys>
SPION_DEVICE int clip_walk(const SpionAttentionArguments& args, Walk& walk, int batch,
                           int first_row, int limit) {
    if constexpr (kSpansMasked) {
        const Span span = span_of_tile<kRowsAreKeys, kStationaryRows>(args, batch, first_row);
        const int skipped = granules_below(walk, span.first - kGranule + 1);
        walk.granules += skipped;
        walk.listed -= skipped;
        if (skipped > 0) walk.window = read_window(walk, 0);
        return min(limit, span.end);
    }
    return limit;
}

// The element mask of a warp's rows in the steps of an item.
template <bool kRowsAreKeys>
struct StepElements {
    ElementMask<kRowsAreKeys> mask;
    const GranuleIndex* granules;  // of this step and those after it
    int listed;                    // of them

    __device__ __forceinline__ StepElements at(int step) const {
        return {mask, granules + step * kGranulesPerStep, listed - step * kGranulesPerStep};
    }
    // The same of a warp's row tile `m`, 16 rows each.
    __device__ __forceinline__ StepElements of_row_tile(int m) const {
        return {{mask.spans, mask.warp_row + 16 * m}, granules, listed};
    }
    // The streamed position of the step's column; L where it has no such column.
    __device__ __forceinline__ int position(int column) const {
        const int index = column / kGranule;
        return index < listed ? (int)granules[index] * kGranule + column % kGranule : kLength;
    }
    // Elements that the mask drops become `value`, of tiles kFirst to kEnd of an accumulator whose
    // first column is the step's column `column`.
    template <int kFirst, int kEnd, int kTiles>
    __device__ __forceinline__ void drop_part(float (&elements)[kTiles][4], int column,
                                              float value) const {
        constexpr int kRuns = 8 * kTiles > kGranule ? 8 * kTiles / kGranule : 1;
        mask_elements<kRuns, kFirst, kEnd>(
            elements, mask, [&](int run) { return position(column + run * kGranule); }, value);
    }
    template <int kTiles>
    __device__ __forceinline__ void drop(float (&elements)[kTiles][4], int column,
                                         float value) const {
        drop_part<0, kTiles>(elements, column, value);
    }
};

// Starts copying the rows of one step to tiles `a` and `b` of kStreamedRows rows each; rows that
// the step does not have become zeros. Steps are asked for in order, once for each member.
SPION_DEVICE void copy_step(Walk& walk, int step, unsigned tile_a, const Rows& a, unsigned tile_b,
                            const Rows& b) {
    constexpr int kChunks = kStreamedRows * kRowChunks;
    constexpr int kCopies = (kChunks + kThreads - 1) / kThreads;
    const int first_granule = step * kGranulesPerStep;
    if ((step > 0 || kMembers > 1) && first_granule % 32 == 0)
        walk.window = read_window(walk, first_granule);
    const int present = walk.valid - step * kStreamedRows;
    const int first_chunk = chunk_in_turn<kRowChunks, kThreads>(0, (int)threadIdx.x);
#pragma unroll kCopies < 4 ? kCopies : 4
    for (int i = 0; i < kCopies; ++i) {
        const int row = row_in_turn<kRowChunks, kThreads>(i, (int)threadIdx.x);
        const int chunk = kThreads % kRowChunks == 0
                              ? first_chunk
                              : chunk_in_turn<kRowChunks, kThreads>(i, (int)threadIdx.x);
        // A granule is a multiple of 32 chunks, so that a warp needs the index of one granule.
        const int slot = (first_granule + row / kGranule) & 31;
        const int granule = __shfl_sync(0xFFFFFFFFU, walk.window, slot);
        if (kChunks % kThreads != 0 && row >= kStreamedRows) break;
        const int source = granule * kGranule + row % kGranule;
        const int offset = chunk_offset<kRowChunks>(row, chunk);
        cp_async_16(tile_a + offset, a.at(source, chunk), row < present);
        cp_async_16(tile_b + offset, b.at(source, chunk), row < present);
    }
}

#endif
