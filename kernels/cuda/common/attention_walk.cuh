// What one thread block computes: a work item and the gather blocks that stream past it.
#ifndef SPION_ATTENTION_WALK_CUH
#define SPION_ATTENTION_WALK_CUH

#include "kernels/attention_arguments.h"
#include "kernels/cuda/common/contract.cuh"
#include "kernels/cuda/common/dropout.cuh"
#include "kernels/cuda/common/heads.cuh"
#include "kernels/cuda/common/mask.cuh"
#include "kernels/cuda/common/pipeline.cuh"
#include "kernels/cuda/common/score.cuh"
#include "kernels/cuda/common/score_expression.cuh"
#include "kernels/cuda/common/sequences.cuh"
#include "kernels/cuda/common/tile_copy.cuh"
#include "kernels/cuda/common/work_item.cuh"

enum : int { kGatherBlocksPerStep = kStreamedRows / kGatherRows };
enum : int { kTileBytes = kStreamedRows * kRowBytes };
enum : int { kStationaryBytes = kStationaryRows * kRowBytes };

static_assert(kGatherRows % 16 == 0 && kStreamedRows % kGatherRows == 0);
static_assert(32 % kGatherBlocksPerStep == 0, "a step's gather blocks lie within one window");
static_assert(kColumns % 16 == 0 && kStreamedRows % kColumns == 0);

// The gather blocks of a work item as a sequence of rows, gather block after gather block. Gather
// blocks that start at or beyond the limit are cut off; as gather blocks ascend, rows of the
// sequence that are past the limit (or past L) are then at its end.
struct Walk {
    const GatherBlockIndex* gather_blocks;  // [listed]
    int listed;                             // gather blocks of the work item
    int valid;                              // rows of the sequence below the limit
    int elements;  // rows of the uncut sequence that exist: the n_i of ir/attention.h
    int window;    // lane i holds gather block 32 * k + i of the current 32

    // Steps of kStreamedRows rows.
    __device__ __forceinline__ int steps() const {
        if constexpr (kSteps >= 0) return kSteps;
        return (valid + kStreamedRows - 1) / kStreamedRows;
    }
};

SPION_DEVICE int read_window(const Walk& walk, int first) {
    const int index = first + lane_index();
    return index < walk.listed ? walk.gather_blocks[index] : 0;
}

// Rows below `limit` of a sequence of `count` gather blocks whose last is `last`.
SPION_DEVICE int rows_below(int limit, int count, int last) {
    return count == 0 ? 0
                      : (count - 1) * kGatherRows + min(kGatherRows, limit - last * kGatherRows);
}

SPION_DEVICE int gather_block_at(const Walk& walk, int index) {
    if (walk.listed <= 32) return __shfl_sync(0xFFFFFFFFU, walk.window, index & 31);
    return walk.gather_blocks[index];
}

// Gather blocks that start below `limit`: a prefix of the list.
SPION_DEVICE int gather_blocks_below(const Walk& walk, int limit) {
    int count = 0;
    for (int first = 0; first < walk.listed; first += 32) {
        const int gather_block = first == 0 ? walk.window : read_window(walk, first);
        const bool below = first + lane_index() < walk.listed && gather_block * kGatherRows < limit;
        const int here = __popc(__ballot_sync(0xFFFFFFFFU, below));
        count += here;
        if (here < 32) break;
    }
    return count;
}

// Starts reading the list of a work item. Nothing waits for it before measure_walk, so that other
// loads can be under way at the same time.
// member: whose walk, where members have walks of their own.
SPION_DEVICE Walk open_walk(const SpionAttentionArguments& args, int order_index, int member = 0) {
    if constexpr (kItemWalks > 1) order_index = order_index * kItemWalks + member;
    const int first = offset_at(args, order_index);
    Walk walk;
    walk.listed = offset_at(args, order_index + 1) - first;
    walk.gather_blocks = gather_block_table(args) + first;
    walk.window = read_window(walk, 0);
    walk.elements = 0;
    walk.valid = 0;
    return walk;
}

// Counts the rows of the walk.
SPION_DEVICE void measure_walk(Walk& walk, int limit) {
    if (walk.listed > 0) {
        walk.elements =
            rows_below(kStreamedLength, walk.listed, gather_block_at(walk, walk.listed - 1));
        walk.valid = walk.elements;
    }
    if (limit < kStreamedLength) {
        const int count = gather_blocks_below(walk, limit);
        walk.valid = count == 0 ? 0 : rows_below(limit, count, gather_block_at(walk, count - 1));
    }
}

// Cuts off gather blocks of which no row of the tile keeps anything: at the front here, at the end
// by the limit that it returns for measure_walk, which is at most `limit`.
template <bool kRowsAreKeys>
SPION_DEVICE int clip_walk(const SpionAttentionArguments& args, Walk& walk, int batch,
                           int first_row, int limit) {
    if constexpr (kSpansMasked) {
        const Span span = span_of_tile<kRowsAreKeys, kStationaryRows>(args, batch, first_row);
        const int skipped = gather_blocks_below(walk, span.first - kGatherRows + 1);
        walk.gather_blocks += skipped;
        walk.listed -= skipped;
        if (skipped > 0) walk.window = read_window(walk, 0);
        return min(limit, span.end);
    }
    return limit;
}

// Whether bodies have to know which positions their scores are of.
enum : bool {
    kPositionsMatter = kElementsMasked || kDrops || kSlopes || kRelativeBias > 0 || kExpression
};

// What depends on the positions of a warp's rows and columns, in the steps of an item: the element
// mask, dropout, slopes and a bias.
template <bool kRowsAreKeys>
struct StepElements {
    ElementMask<kRowsAreKeys> mask;
    const GatherBlockIndex* gather_blocks;  // of this step and those after it
    int listed;                             // of them
    DropoutKey key;                         // of the query head
    HeadScores scores_of_head;
    int diagonal;  // diagonal_of() the sample

    __device__ __forceinline__ StepElements at(int step) const {
        return {mask,
                gather_blocks + step * kGatherBlocksPerStep,
                listed - step * kGatherBlocksPerStep,
                key,
                scores_of_head,
                diagonal};
    }
    // The same of a warp's row tile `m`, 16 rows each.
    __device__ __forceinline__ StepElements of_row_tile(int m) const {
        return {{mask.spans, mask.warp_row + 16 * m},
                gather_blocks,
                listed,
                key,
                scores_of_head,
                diagonal};
    }
    // The same of the query head of an item's member.
    __device__ __forceinline__ StepElements of_member(const SpionAttentionArguments& args,
                                                      int batch, int head, int member) const {
        if constexpr (kMembers == 1) return *this;
        const int query = query_head(head, member);
        return {mask,
                gather_blocks,
                listed,
                dropout_key(args, (unsigned)(batch * kHeads + query)),
                head_scores(args, batch, query),
                diagonal};
    }
    // The streamed position of the step's column; the end where it has no such column.
    __device__ __forceinline__ int position(int column) const {
        const int index = column / kGatherRows;
        return index < listed ? (int)gather_blocks[index] * kGatherRows + column % kGatherRows
                              : kStreamedLength;
    }
    // A quarter of it, for columns that are multiples of 4 and that the step has.
    __device__ __forceinline__ unsigned quarter_of_position(int column) const {
        const int index = column / kGatherRows;
        const bool has = kGatherBlocksPerStep == 1 || index < listed;
        const unsigned gather_block = has ? (unsigned)gather_blocks[index] : 0U;
        return gather_block * (kGatherRows / 4) + (unsigned)(column % kGatherRows / 4);
    }
    // Elements that the mask drops become `value`, of tiles kFirst to kEnd of an accumulator whose
    // first column is the step's column `column`.
    template <int kFirst, int kEnd, int kTiles>
    __device__ __forceinline__ void drop_part(float (&elements)[kTiles][4], int column,
                                              float value) const {
        constexpr int kRuns = 8 * kTiles > kGatherRows ? 8 * kTiles / kGatherRows : 1;
        mask_elements<kRuns, kFirst, kEnd>(
            elements, mask, [&](int run) { return position(column + run * kGatherRows); }, value);
    }
    template <int kTiles>
    __device__ __forceinline__ void drop(float (&elements)[kTiles][4], int column,
                                         float value) const {
        drop_part<0, kTiles>(elements, column, value);
    }
    // What dropout keeps of [16, 8 * kTiles] elements from the step's column `column` on.
    template <int kTiles>
    __device__ __forceinline__ KeptElements<kRowsAreKeys, kTiles> kept(int column) const {
        return draw_kept<kRowsAreKeys, kTiles>(
            key, mask.warp_row, [&](int n) { return quarter_of_position(column + 16 * n); });
    }
    template <int kTiles>
    __device__ __forceinline__ void add_position_terms(float (&scores)[kTiles][4],
                                                       int column) const {
        NoSlopes slopes;
        add_position_terms(scores, slopes, column);
    }
    // The same with the slopes of an expression.
    template <int kTiles, typename Slopes>
    __device__ __forceinline__ void add_position_terms(float (&scores)[kTiles][4], Slopes& slopes,
                                                       int column) const {
        express_scores<kRowsAreKeys>(scores, slopes, scores_of_head, mask.warp_row,
                                     [&](int n) { return position(column + 16 * n); });
        // Distances are those of query i + diagonal to key j.
        const int beside = mask.warp_row + (kRowsAreKeys ? -diagonal : diagonal);
        scores_of_head.add_position_terms<kRowsAreKeys, kGatherRows>(
            scores, beside, [&](int n) { return position(column + 16 * n); });
    }
    // To the gradient of a bias, dS [16, 8 * kTiles] from the step's column `column` on.
    template <int kTiles>
    __device__ __forceinline__ void add_bias_gradient(BiasGradient& sums,
                                                      const float (&gradient)[kTiles][4],
                                                      int column) const {
        static_assert(!kRowsAreKeys, "sums are of query rows");
        sums.add<kGatherRows>(gradient, mask.warp_row + diagonal,
                              [&](int n) { return position(column + 16 * n); });
    }
};

// Of the rows from `row` on of an item with the walk; head: of the item.
template <bool kRowsAreKeys>
SPION_DEVICE StepElements<kRowsAreKeys> step_elements(const SpionAttentionArguments& args,
                                                      const GatherBlockIndex* gather_blocks,
                                                      int listed, int batch, int head, int row) {
    const int query = query_head(head, 0);
    return {element_mask<kRowsAreKeys>(args, batch, row),
            gather_blocks,
            listed,
            dropout_key(args, (unsigned)(batch * kHeads + query)),
            head_scores(args, batch, query),
            diagonal_of(args, batch)};
}

// Starts copying the rows of one step to tiles `a` and `b` of kStreamedRows rows each; rows that
// the step does not have become zeros. Steps are asked for in order, once for each member.
template <int kChunksOfA, int kChunksOfB>
SPION_DEVICE void copy_step(Walk& walk, int step, unsigned tile_a, const RowsOf<kChunksOfA>& a,
                            unsigned tile_b, const RowsOf<kChunksOfB>& b) {
    constexpr int kChunks = kStreamedRows * kRowChunks;
    constexpr int kCopies = (kChunks + kThreads - 1) / kThreads;
    const int first_gather_block = step * kGatherBlocksPerStep;
    if ((step > 0 || kMembers > 1) && first_gather_block % 32 == 0)
        walk.window = read_window(walk, first_gather_block);
    const int present = walk.valid - step * kStreamedRows;
    const int first_chunk = copied_chunk<kRowChunks, kThreads>(0, (int)threadIdx.x);
#pragma unroll kCopies < 4 ? kCopies : 4
    for (int i = 0; i < kCopies; ++i) {
        const int row = copied_row<kRowChunks, kThreads>(i, (int)threadIdx.x);
        const int chunk = kThreads % kRowChunks == 0
                              ? first_chunk
                              : copied_chunk<kRowChunks, kThreads>(i, (int)threadIdx.x);
        // A gather block is a multiple of 32 chunks, so that a warp needs the index of one gather
        // block.
        const int entry = (first_gather_block + row / kGatherRows) & 31;
        const int gather_block = __shfl_sync(0xFFFFFFFFU, walk.window, entry);
        if (kChunks % kThreads != 0 && row >= kStreamedRows) break;
        const int source = gather_block * kGatherRows + row % kGatherRows;
        const int offset = chunk_offset<kRowChunks>(row, chunk);
        cp_async_16(tile_a + offset, a.at(source, chunk), row < present && a.has(chunk));
        cp_async_16(tile_b + offset, b.at(source, chunk), row < present && b.has(chunk));
    }
}

#endif
