// How the attention bodies walk a TileProgram (ir/tile_program.h): one work item is one stationary
// tile of one head of one sample.
#pragma once

#include "kernels/attention_arguments.h"
#include "kernels/host/dropout.h"
#include "kernels/host/heads.h"
#include "kernels/host/mask.h"
#include "kernels/host/score.h"
#include "kernels/host/tile.h"
#include "kernels/host/work_item.h"

extern "C" {
extern const int kStreamedRows;  // of one step, a multiple of kGatherRows
}

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
        fetch_rows(streamed_row(tensor, work, head, step.first(i)), tensor.row_stride, step.rows(i),
                   width);
        fetch_rows(streamed_row(other, work, head, step.first(i)), other.row_stride, step.rows(i),
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
    const long long left = positions_of(args, false, work.batch) - work.first;
    const int queries = static_cast<int>(left < work.rows ? left : work.rows);
    fetch_rows(row_in_head(args.q, work, head, work.start, work.first), args.q.row_stride, queries,
               kHeadDim);
    fetch_rows(row_in_head(args.d_o, work, head, work.start, work.first), args.d_o.row_stride,
               queries, kValueDim);
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
        if (any_non_zero(streamed_row(d_o, work, head, step.first(i)), d_o.row_stride, step.rows(i),
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
    // Distances are those of query i + diagonal to key j.
    const int diagonal = diagonal_of(args, work.batch);
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
        score(streamed_row(tensor, work, head, step.first(i)), tensor.row_stride, rows, width,
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
        accumulate(streamed_row(tensor, work, head, step.first(i)), tensor.row_stride, rows, width,
                   weights.data + gathered * kStationaryRows, sums);
        gathered += rows;
    }
}
