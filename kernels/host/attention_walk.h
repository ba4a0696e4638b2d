// How the attention bodies walk a TileProgram (ir/tile_program.h): one work item is one stationary
// tile of one head of one sample.
#pragma once

#include "kernels/attention_arguments.h"
#include "kernels/host/dropout.h"
#include "kernels/host/heads.h"
#include "kernels/host/mask.h"
#include "kernels/host/score.h"
#include "kernels/host/tile.h"

extern "C" {
extern const int kStreamedRows;  // of one step, a multiple of kGatherRows
extern const int kPackedRows;    // block rows of a tile, kStationaryRows each
}

// Where the walk's tables come from: the arguments (tier 0), or constants of the source (tier 1).
// kListed: gather blocks of every work item, -1 where they differ.
#ifdef SPION_BAKED_TABLES
extern "C" {
extern const int kTiles;
extern const int kListed;
extern const int* const kOrder;          // [kTiles]
extern const int* const kOffsets;        // [kTiles + 1]
extern const int* const kGatherBlocks;   // [kOffsets[kTiles]]
extern const int* const kBlockRowMasks;  // [kOffsets[kTiles]] where kPackedRows > 1
}
SPION_INLINE int tile_count(const SpionAttentionArguments&) {
    return kTiles;
}
SPION_INLINE int tile_at(const SpionAttentionArguments&, int order_index) {
    return kOrder[order_index];
}
SPION_INLINE int offset_at(const SpionAttentionArguments&, int order_index) {
    return kListed >= 0 ? order_index * kListed : kOffsets[order_index];
}
SPION_INLINE int gather_block_count(const SpionAttentionArguments&, int order_index) {
    return kListed >= 0 ? kListed : kOffsets[order_index + 1] - kOffsets[order_index];
}
SPION_INLINE const int* gather_block_table(const SpionAttentionArguments&) {
    return kGatherBlocks;
}
SPION_INLINE const int* block_row_mask_table(const SpionAttentionArguments&) {
    return kBlockRowMasks;
}
#else
SPION_INLINE int tile_count(const SpionAttentionArguments& args) {
    return args.tiles;
}
SPION_INLINE int tile_at(const SpionAttentionArguments& args, int order_index) {
    return args.order[order_index];
}
SPION_INLINE int offset_at(const SpionAttentionArguments& args, int order_index) {
    return args.offsets[order_index];
}
SPION_INLINE int gather_block_count(const SpionAttentionArguments& args, int order_index) {
    return args.offsets[order_index + 1] - args.offsets[order_index];
}
SPION_INLINE const int* gather_block_table(const SpionAttentionArguments& args) {
    return args.gather_blocks;
}
SPION_INLINE const int* block_row_mask_table(const SpionAttentionArguments& args) {
    return reinterpret_cast<const int*>(args.block_row_masks);
}
#endif

// One block row of a work item, the whole of it where tiles are not packed. Lanes gain nothing from
// the keys that block rows share, so those of a packed tile follow one another.
struct WorkItem {
    int batch, head;
    long long first;  // stationary rows [first, first + rows)
    int rows;         // that the sample has
    int start;        // where the sample's rows begin, of sequences that lie end to end
    int order_index;
    const int* gather_blocks;  // what it streams, [gather_block_count]
    int gather_block_count;
    const int* block_row_masks;  // [gather_block_count] where kPackedRows > 1
    int row;                     // of the tile's block rows: the bit in `block_row_masks`
    long long row_base;          // of its (first) query head in lse and delta [B, H, L]
    int valid_keys;              // keys of the sample that are not padding
    TileSpans spans;             // where the operation has a mask
};

// Loads the mask of the item's rows and leaves out gather blocks of which none keeps anything.
SPION_INLINE void apply_mask(const SpionAttentionArguments& args, bool rows_are_keys,
                             WorkItem& work) {
    load_spans(args, rows_are_keys, work.batch, work.first, work.spans);
    if (kMask != SPION_MASK_SPANS) {
        return;
    }
    int skipped = 0;
    while (skipped < work.gather_block_count &&
           (work.gather_blocks[skipped] + 1LL) * kGatherRows <= work.spans.any.first) {
        ++skipped;
    }
    work.gather_blocks += skipped;
    work.block_row_masks += kPackedRows > 1 ? skipped : 0;
    work.gather_block_count -= skipped;
    while (work.gather_block_count > 0 &&
           static_cast<long long>(work.gather_blocks[work.gather_block_count - 1]) * kGatherRows >=
               work.spans.any.end) {
        --work.gather_block_count;
    }
}

// What a member of the item streams; the same for all of them unless they have patterns of their own.
SPION_INLINE void open_walk(const SpionAttentionArguments& args, bool rows_are_keys, int member,
                            WorkItem& work) {
    const int walk = work.order_index * item_walks() + (item_walks() > 1 ? member : 0);
    work.gather_blocks = gather_block_table(args) + offset_at(args, walk);
    work.gather_block_count = gather_block_count(args, walk);
    work.block_row_masks =
        kPackedRows > 1 ? block_row_mask_table(args) + offset_at(args, walk) : nullptr;
    apply_mask(args, rows_are_keys, work);
}

// Of `left` rows from the tile's first on.
SPION_INLINE int rows_of_tile(long long left) {
    return static_cast<int>(left < kStationaryRows ? left : kStationaryRows);
}

// Which tile of which head of which sample an item is, and the place of its walk.
struct TileOfItem {
    int batch, head, tile, order_index;
};

// As a batch-head has its walks in order; of several patterns, an entry says the head's too.
SPION_INLINE TileOfItem tile_of_item(const SpionAttentionArguments& args, long long item,
                                     int tiles) {
    const int order_index = static_cast<int>(item % tile_count(args));
    const long long batch_head = item / tile_count(args);
    const int entry = tile_at(args, order_index * item_walks());
    return {static_cast<int>(batch_head / pattern_heads()),
            entry / tiles / item_walks() * pattern_heads() +
                static_cast<int>(batch_head % pattern_heads()),
            entry % tiles, order_index};
}

// As kernels/cuda/common/attention_walk.cuh has it: tile t of sequence b is item
// starts[b] / tile_rows + b + t of a head.
SPION_INLINE TileOfItem tile_of_sequences(const SpionAttentionArguments& args, long long item,
                                          int tiles, int tile_rows) {
    const int head = static_cast<int>(item / args.tiles),
              of_head = static_cast<int>(item % args.tiles);
    int sequence = 0;
    while (sequence + 1 < args.batch &&
           args.starts[sequence + 1] / tile_rows + sequence + 1 <= of_head) {
        ++sequence;
    }
    const int tile = of_head - (args.starts[sequence] / tile_rows + sequence);
    return {sequence, head, tile, tile < tiles ? tile : tiles - 1};
}

// row_item: work item * kPackedRows + block row. The walk is to be opened.
SPION_INLINE WorkItem work_item(const SpionAttentionArguments& args, long long row_item,
                                bool rows_are_keys) {
    const int tile_rows = kPackedRows * kStationaryRows;
    const int tiles = (stationary_length(rows_are_keys) - 1) / tile_rows + 1;  // of a pattern
    const TileOfItem of = kVarlen && kPatterns == 1
                              ? tile_of_sequences(args, row_item / kPackedRows, tiles, tile_rows)
                              : tile_of_item(args, row_item / kPackedRows, tiles);
    WorkItem work;
    work.order_index = of.order_index;
    work.batch = of.batch;
    work.head = of.head;
    work.row = static_cast<int>(row_item % kPackedRows);
    work.first = (static_cast<long long>(of.tile) * kPackedRows + work.row) * kStationaryRows;
    work.rows =
        rows_of_tile(positions_of(args, work.batch, stationary_length(rows_are_keys)) - work.first);
    work.start = kVarlen ? args.starts[work.batch] : 0;
    work.row_base =
        (static_cast<long long>(work.batch) * kHeads + query_head(work.head, 0)) * kLength;
    work.valid_keys = key_limit(args, work.batch);
    return work;
}

// The last packed tile may have block rows that do not exist, a sequence items without positions.
SPION_INLINE bool is_beyond_end(const WorkItem& work) {
    return (kPackedRows > 1 || kVarlen) && work.rows <= 0;
}

// Whether the item's rows use gather block i of the list.
SPION_INLINE bool has_gather_block(const WorkItem& work, int i) {
    return kPackedRows == 1 || (work.block_row_masks[i] >> work.row & 1) != 0;
}

SPION_INLINE float* row_in_head(const SpionTensor& tensor, const WorkItem& work, int head,
                                long long row) {
    return static_cast<float*>(tensor.data) + (kVarlen ? 0 : work.batch) * tensor.batch_stride +
           head * tensor.head_stride + (work.start + row) * tensor.row_stride;
}

// Row `row` of the item's head in a tensor of queries: Q, O, dO, dQ.
SPION_INLINE float* row_of(const SpionTensor& tensor, const WorkItem& work, long long row) {
    return row_in_head(tensor, work, work.head, row);
}

// The same in a tensor of keys: K, V, dK, dV.
SPION_INLINE float* key_row_of(const SpionTensor& tensor, const WorkItem& work, long long row) {
    return row_in_head(tensor, work, key_head(work.head), row);
}

// One step's streamed rows: the gather blocks [begin, end) of the list, gathered side by side.
struct Step {
    const int* gather_blocks;
    int count;
    int limit;  // rows from here on do not exist (L, or the sample's padding)

    SPION_INLINE_MEMBER long long first(int i) const {
        return static_cast<long long>(gather_blocks[i]) * kGatherRows;
    }
    SPION_INLINE_MEMBER int rows(int i) const { return rows_below(first(i), limit); }
};

// Asks for rows that are used soon. Those of a head lie far apart, so that no hardware prefetcher
// follows them, and a sparse walk has little to compute until they come.
SPION_INLINE void fetch_rows(const float* first, long long row_stride, int rows, int width) {
    constexpr int kLine = 16;  // floats of a cache line
    for (int row = 0; row < rows; ++row) {
        for (int d = 0; d < width; d += kLine) {
            __builtin_prefetch(first + row * row_stride + d);
        }
    }
}

// A step's rows in two tensors.
SPION_INLINE void fetch_step(const Step& step, const SpionTensor& tensor, int width,
                             const SpionTensor& other, int other_width, const WorkItem& work,
                             int head) {
    for (int i = 0; i < step.count; ++i) {
        fetch_rows(row_in_head(tensor, work, head, step.first(i)), tensor.row_stride, step.rows(i),
                   width);
        fetch_rows(row_in_head(other, work, head, step.first(i)), other.row_stride, step.rows(i),
                   other_width);
    }
}

// Keys of an item of keys that are not padding.
SPION_INLINE int valid_keys_of(const WorkItem& work) {
    const long long left = work.valid_keys - work.first;
    return static_cast<int>(left < 0 ? 0 : left < work.rows ? left : work.rows);
}

// What the next item of queries reads at its own positions, unless it is beyond the items that end at
// `end`: its rows of Q, of the outputs' tensors if it has gradients, and K and V, as patterns follow
// the diagonal.
SPION_INLINE void fetch_query_item(const SpionAttentionArguments& args, long long row_item,
                                   long long end, bool has_gradients) {
    if (row_item >= end * kPackedRows) {
        return;
    }
    const WorkItem work = work_item(args, row_item, false);
    fetch_rows(row_of(args.q, work, work.first), args.q.row_stride, work.rows, kHeadDim);
    if (has_gradients) {
        fetch_rows(row_of(args.o, work, work.first), args.o.row_stride, work.rows, kValueDim);
        fetch_rows(row_of(args.d_o, work, work.first), args.d_o.row_stride, work.rows, kValueDim);
    }
    const int keys = valid_keys_of(work);
    fetch_rows(key_row_of(args.k, work, work.first), args.k.row_stride, keys, kHeadDim);
    fetch_rows(key_row_of(args.v, work, work.first), args.v.row_stride, keys, kValueDim);
}

// The same of an item of keys: its rows of K and V, and those of Q and dO.
SPION_INLINE void fetch_key_item(const SpionAttentionArguments& args, long long row_item,
                                 long long end) {
    if (row_item >= end * kPackedRows) {
        return;
    }
    const WorkItem work = work_item(args, row_item, true);
    fetch_rows(key_row_of(args.k, work, work.first), args.k.row_stride, work.rows, kHeadDim);
    fetch_rows(key_row_of(args.v, work, work.first), args.v.row_stride, work.rows, kValueDim);
    const int head = query_head(work.head, 0);
    const long long left = positions_of(args, work.batch, kLength) - work.first;
    const int queries = static_cast<int>(left < work.rows ? left : work.rows);
    fetch_rows(row_in_head(args.q, work, head, work.first), args.q.row_stride, queries, kHeadDim);
    fetch_rows(row_in_head(args.d_o, work, head, work.first), args.d_o.row_stride, queries,
               kValueDim);
}

// Calls visit(step) on the gather blocks that the item's rows use, in order, kStreamedRows /
// kGatherRows at a time, and before that fetch(next) on the step that follows.
template <typename Fetch, typename Visit>
SPION_INLINE void for_each_step(const WorkItem& work, int limit, Fetch fetch, Visit visit) {
    const int per_step = kStreamedRows / kGatherRows;
    if (kPackedRows > 1) {
        int own[kMaxStreamedRows / 16];
        int count = 0;
        for (int i = 0; i < work.gather_block_count; ++i) {
            if (has_gather_block(work, i)) {
                own[count++] = work.gather_blocks[i];
            }
            if (count == per_step || (count > 0 && i + 1 == work.gather_block_count)) {
                visit(Step{own, count, limit});
                count = 0;
            }
        }
        return;
    }
    for (int begin = 0; begin < work.gather_block_count; begin += per_step) {
        const int left = work.gather_block_count - begin;
        if (left > per_step) {
            const int after = left - per_step;
            fetch(Step{work.gather_blocks + begin + per_step, after < per_step ? after : per_step,
                       limit});
        }
        visit(Step{work.gather_blocks + begin, left < per_step ? left : per_step, limit});
    }
}

// Whether a step's rows of dO have an element that is not zero. Rows without one, as a sample's padded
// queries in training, add nothing to any gradient.
SPION_INLINE bool has_gradients(const Step& step, const SpionTensor& d_o, const WorkItem& work,
                                int head) {
    for (int i = 0; i < step.count; ++i) {
        if (any_non_zero(row_in_head(d_o, work, head, step.first(i)), d_o.row_stride, step.rows(i),
                         kValueDim)) {
            return true;
        }
    }
    return false;
}

// Of a step's scores [rows][lanes], those that the mask drops become minus infinity.
SPION_INLINE void mask_step(const Step& step, const TileSpans& spans, Scores& scores) {
    int gathered = 0;
    for (int i = 0; kMask != SPION_MASK_NONE && !kBlocksAreFull && i < step.count; ++i) {
        mask_scores(spans, step.first(i), step.rows(i), scores.data + gathered * kStationaryRows);
        gathered += step.rows(i);
    }
}

// Of a step's scores [rows][lanes] of a query head: caps them or puts them through the expression,
// writing the slopes unless null, and adds what depends on positions.
SPION_INLINE void change_step(const SpionAttentionArguments& args, bool rows_are_keys,
                              const Step& step, const WorkItem& work, int query_head,
                              Scores& scores, Scores* slopes) {
    // Distances are those of query i + Lk - L to key j.
    const int diagonal = kKeyLength - kLength;
    const long long beside = work.first + (rows_are_keys ? -diagonal : diagonal);
    const bool changes = kSoftcap > 0.0F || kExpression || kAlibi || kRelativeBias > 0;
    const int lanes = rows_are_keys ? valid_keys_of(work) : work.rows;
    ScorePlace place = {rows_are_keys, query_head, work.batch, work.first, work.first + lanes, 0};
    int gathered = 0;
    for (int i = 0; changes && i < step.count; ++i) {
        const int rows = step.rows(i), at = gathered * kStationaryRows;
        float* const of_step = slopes == nullptr ? nullptr : slopes->data + at;
        cap_scores(rows, scores.data + at, of_step);
        place.row = step.first(i);
        express_scores(place, rows, scores.data + at, of_step);
        add_slopes(args, query_head, beside, step.first(i), rows, scores.data + at);
        add_bias(args, rows_are_keys, query_head, beside, step.first(i), rows, scores.data + at);
        gathered += rows;
    }
}

// What dropout leaves of a step's elements [rows][lanes] of a query head, to `factors`.
SPION_INLINE void draw_step(const SpionAttentionArguments& args, bool rows_are_keys,
                            const Step& step, const WorkItem& work, int query_head,
                            Scores& factors) {
    int gathered = 0;
    for (int i = 0; kDropped > 0 && i < step.count; ++i) {
        draw(args, rows_are_keys, work.batch * kHeads + query_head, work.first, step.first(i),
             step.rows(i), factors.data + gathered * kStationaryRows);
        gathered += step.rows(i);
    }
}

// out [rows][lanes] = elements times factors.
SPION_INLINE void apply_dropout(int rows, const Scores& factors, const Scores& elements,
                                Scores& out) {
    for (int at = 0; kDropped > 0 && at < rows * kStationaryRows; at += kLanes) {
        store(out.data + at, load(elements.data + at) * load(factors.data + at));
    }
}

// scores[n][lane] of a step, whose rows are those of `head` in the tensor; returns the number of
// rows n.
SPION_INLINE int score_step(const Step& step, const SpionTensor& tensor, const WorkItem& work,
                            int head, int width, const Operand& stationary, Scores& scores) {
    int gathered = 0;
    for (int i = 0; i < step.count; ++i) {
        const int rows = step.rows(i);
        score(row_in_head(tensor, work, head, step.first(i)), tensor.row_stride, rows, width,
              stationary, scores.data + gathered * kStationaryRows);
        gathered += rows;
    }
    return gathered;
}

// sums[d][lane] += sum over the step's rows n of streamed[n][d] * weights[n][lane].
SPION_INLINE void accumulate_step(const Step& step, const SpionTensor& tensor, const WorkItem& work,
                                  int head, int width, const Scores& weights, Operand& sums) {
    int gathered = 0;
    for (int i = 0; i < step.count; ++i) {
        const int rows = step.rows(i);
        accumulate(row_in_head(tensor, work, head, step.first(i)), tensor.row_stride, rows, width,
                   weights.data + gathered * kStationaryRows, sums);
        gathered += rows;
    }
}
