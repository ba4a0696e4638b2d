// O and LSE of block-sparse attention (ir/attention.h), an online softmax over the item's gather
// blocks. Lanes are query rows; exponents are base 2, so log2(e) is folded into Q's scale.
#include "kernels/host/attention_walk.h"

namespace {

// The softmax so far: the sum over elements of 2^(score - row_max) is row_sum, their weighted
// values are in the item's sums [D][lanes].
struct Softmax {
    RowValues row_max;  // base 2
    RowValues row_sum;
};

// Where the operation has a mask, each row has a number of pruned elements of its own, and a step may
// have nothing for it.
SPION_INLINE void start_masked(Softmax& softmax, const WorkItem& work) {
    for (int row = 0; row < kStationaryRows; ++row) {
        const int first = work.spans.first[row], end = work.spans.end[row];
        long long listed = 0;
        for (int i = 0; i < work.gather_block_count; ++i) {
            const long long from = static_cast<long long>(work.gather_blocks[i]) * kGatherRows;
            const long long to = from + rows_below(from, kKeyLength);
            const long long inside = (to < end ? to : end) - (from > first ? from : first);
            listed += has_gather_block(work, i) && inside > 0 ? inside : 0;
        }
        const long long pruned = pruned_elements(end - first, listed);
        softmax.row_max.data[row] = pruned > 0 ? 0.0F : -3.402823466e38F;
        softmax.row_sum.data[row] = pruned > 0 ? static_cast<float>(pruned) : 0.0F;
    }
}

// One score more in every row.
SPION_INLINE void add_sink(Softmax& softmax, float exponent) {
    for (int lane = 0; kSink && lane < kStationaryRows; lane += kLanes) {
        const Floats before = load(softmax.row_max.data + lane);
        const Floats row_max = larger(before, Floats(exponent));
        const Floats sum = load(softmax.row_sum.data + lane) * exp2_of(before - row_max);
        store(softmax.row_sum.data + lane, sum + exp2_of(Floats(exponent) - row_max));
        store(softmax.row_max.data + lane, row_max);
    }
}

SPION_INLINE void start(Softmax& softmax, const WorkItem& work) {
    if (kMask != SPION_MASK_NONE) {
        start_masked(softmax, work);
        return;
    }
    long long listed = 0;  // n_i: elements of a row in the pattern, padded keys included
    for (int i = 0; i < work.gather_block_count; ++i) {
        if (has_gather_block(work, i)) {
            listed += Step{work.gather_blocks, work.gather_block_count, kKeyLength}.rows(i);
        }
    }
    const long long pruned = pruned_elements(kKeyLength, listed);
    set_all(softmax.row_max, pruned > 0 ? 0.0F : -__builtin_inff());
    set_all(softmax.row_sum, pruned > 0 ? static_cast<float>(pruned) : 0.0F);
}

// Turns a step's scores [rows][lanes] into weights 2^(score - row_max), and rescales what is there.
SPION_INLINE void absorb(Softmax& softmax, int rows, Scores& scores, Operand& sums) {
    for (int lane = 0; lane < kStationaryRows; lane += kLanes) {
        const Floats before = load(softmax.row_max.data + lane);
        Floats row_max = before;
        for (int n = 0; n < rows; ++n) {
            row_max = larger(row_max, load(scores.data + n * kStationaryRows + lane));
        }
        Floats total = 0.0F;
        for (int n = 0; n < rows; ++n) {
            float* at = scores.data + n * kStationaryRows + lane;
            const Floats weight = probability(load(at), row_max);
            store(at, weight);
            total += weight;
        }
        const Floats rescale = exp2_of(before - row_max);
        store(softmax.row_sum.data + lane, load(softmax.row_sum.data + lane) * rescale + total);
        store(softmax.row_max.data + lane, row_max);
        for (int d = 0; d < kValueDim; ++d) {
            float* at = sums.data + d * kStationaryRows + lane;
            store(at, load(at) * rescale);
        }
    }
}

SPION_INLINE void finish(const Softmax& softmax, const SpionAttentionArguments& args,
                         const WorkItem& work, const Operand& sums) {
    RowValues inverse, lse;
    for (int lane = 0; lane < kStationaryRows; lane += kLanes) {
        const Floats total = load(softmax.row_sum.data + lane);
        const Floats natural = load(softmax.row_max.data + lane) * kLn2 + log_of(total);
        store(inverse.data + lane, total == 0.0F ? Floats(0.0F) : 1.0F / total);
        store(lse.data + lane, total == 0.0F ? Floats(-__builtin_inff()) : natural);
    }
    store_transposed(sums, kValueDim, inverse.data, row_of(args.o, work, work.first),
                     args.o.row_stride, work.rows);
    for (int row = 0; row < work.rows; ++row) {
        args.lse[work.row_base + work.first + row] = lse.data[row];
    }
}

}  // namespace

extern "C" void attention_forward(const SpionAttentionArguments* args, long long begin,
                                  long long end) {
    Operand queries, sums;
    Scores scores, factors;
    Softmax softmax;
    for (long long row_item = begin * kPackedRows; row_item < end * kPackedRows; ++row_item) {
        fetch_query_item(*args, row_item + 1, end, false);
        WorkItem work = work_item(*args, row_item, false);
        if (is_beyond_end(work)) {
            continue;
        }
        open_walk(*args, false, 0, work);
        load_transposed(row_of(args->q, work, work.first), args->q.row_stride, work.rows, kHeadDim,
                        score_factor(), queries);
        set_zero(sums, kValueDim);
        start(softmax, work);
        add_sink(softmax, sink_exponent(*args, work.head));
        const auto fetch = [&](const Step& next) {
            fetch_step(next, args->k, kHeadDim, args->v, kValueDim, work, key_head(work.head));
        };
        for_each_step(work, work.valid_keys, fetch, [&](const Step& step) {
            const int rows =
                score_step(step, args->k, work, key_head(work.head), kHeadDim, queries, scores);
            if (rows > 0) {
                change_step(*args, false, step, work, work.head, scores, nullptr);
                mask_step(step, work.spans, scores);
                absorb(softmax, rows, scores, sums);
                draw_step(*args, false, step, work, work.head, factors);
                apply_dropout(rows, factors, scores, scores);
                accumulate_step(step, args->v, work, key_head(work.head), kValueDim, scores, sums);
            }
        });
        finish(softmax, *args, work, sums);
    }
}
