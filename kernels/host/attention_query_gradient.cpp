// dQ of block-sparse attention and delta = rowsum(dO * O), which dK and dV need. Lanes are query
// rows. P is recomputed from LSE: P = 2^(S log2(e) - LSE log2(e)).
#include "kernels/host/attention_walk.h"

namespace {

// delta[row] of the item's rows, to memory and to `delta`. `scratch` holds O in between.
SPION_INLINE void write_delta(const SpionAttentionArguments& args, const WorkItem& work,
                              const Operand& output_gradient, Operand& scratch, RowValues& delta) {
    load_transposed(row_of(args.o, work, work.first), args.o.row_stride, work.rows, kValueDim, 1.0F,
                    scratch);
    for (int lane = 0; lane < kStationaryRows; lane += kLanes) {
        Floats sum = 0.0F;
        for (int d = 0; d < kValueDim; ++d) {
            const int at = d * kStationaryRows + lane;
            sum += load(scratch.data + at) * load(output_gradient.data + at);
        }
        store(delta.data + lane, sum);
    }
    for (int row = 0; row < work.rows; ++row) {
        args.delta[work.row_base + work.first + row] = delta.data[row];
    }
}

// LSE in base 2; rows that do not exist get one that makes their P zero.
SPION_INLINE void load_lse(const float* lse, int valid, RowValues& base2) {
    for (int row = 0; row < kStationaryRows; ++row) {
        base2.data[row] = row < valid ? probability_shift(lse[row]) : __builtin_inff();
    }
}

// scores [rows][lanes] become dS / scale = P * (dP - delta).
SPION_INLINE void to_score_gradients(int rows, const RowValues& lse, const RowValues& delta,
                                     const Scores& weight_gradients, const Scores& slopes,
                                     Scores& scores) {
    for (int n = 0; n < rows; ++n) {
        for (int lane = 0; lane < kStationaryRows; lane += kLanes) {
            const int at = n * kStationaryRows + lane;
            const Floats p = probability(load(scores.data + at), load(lse.data + lane));
            store(scores.data + at, score_gradient(p, load(weight_gradients.data + at),
                                                   load(delta.data + lane), slopes.data + at));
        }
    }
}

}  // namespace

extern "C" void attention_query_gradient(const SpionAttentionArguments* args, long long begin,
                                         long long end) {
    Operand queries, output_gradient, sums;
    Scores scores, weight_gradients, slopes, factors;
    RowValues lse, delta, scale;
    set_all(scale, kScale);
    for (long long row_item = begin * kPackedRows; row_item < end * kPackedRows; ++row_item) {
        fetch_query_item(*args, row_item + 1, end, true);
        WorkItem work = work_item(*args, row_item, false);
        if (is_beyond_end(work)) {
            continue;
        }
        open_walk(*args, false, 0, work);
        // Rows whose dO is zero, as a sample's padded queries in training, have no gradient.
        if (!any_non_zero(row_of(args->d_o, work, work.first), args->d_o.row_stride, work.rows,
                          kValueDim)) {
            work.gather_block_count = 0;
        }
        load_transposed(row_of(args->q, work, work.first), args->q.row_stride, work.rows, kHeadDim,
                        score_factor(), queries);
        load_transposed(row_of(args->d_o, work, work.first), args->d_o.row_stride, work.rows,
                        kValueDim, 1.0F, output_gradient);
        load_lse(args->lse + work.row_base + work.first, work.rows, lse);
        write_delta(*args, work, output_gradient, sums, delta);
        set_zero(sums, kHeadDim);
        const auto fetch = [&](const Step& next) {
            fetch_step(next, args->k, kHeadDim, args->v, kValueDim, work, key_head(work.head));
        };
        for_each_step(work, work.valid_keys, fetch, [&](const Step& step) {
            const int rows =
                score_step(step, args->k, work, key_head(work.head), kHeadDim, queries, scores);
            change_step(*args, false, step, work, work.head, scores, &slopes);
            mask_step(step, work.spans, scores);
            score_step(step, args->v, work, key_head(work.head), kValueDim, output_gradient,
                       weight_gradients);
            draw_step(*args, false, step, work, work.head, factors);
            apply_dropout(rows, factors, weight_gradients, weight_gradients);
            to_score_gradients(rows, lse, delta, weight_gradients, slopes, scores);
            accumulate_step(step, args->k, work, key_head(work.head), kHeadDim, scores, sums);
        });
        store_transposed(sums, kHeadDim, scale.data, row_of(args->d_q, work, work.first),
                         args->d_q.row_stride, work.rows);
    }
}
