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

// scores [rows][lanes] become dS / scale = P * (dP - delta), and with a bias weight_gradients the same
// before a cap's slope.
SPION_INLINE void to_score_gradients(int rows, const RowValues& lse, const RowValues& delta,
                                     const Scores& slopes, Scores& weight_gradients,
                                     Scores& scores) {
    for (int n = 0; n < rows; ++n) {
        for (int lane = 0; lane < kStationaryRows; lane += kLanes) {
            const int at = n * kStationaryRows + lane;
            const Floats p = probability(load(scores.data + at), load(lse.data + lane));
            const Floats gradient = load(weight_gradients.data + at);
            store(scores.data + at,
                  score_gradient(p, gradient, load(delta.data + lane), slopes.data + at));
            if (kRelativeBias > 0) {
                store(weight_gradients.data + at, p * (gradient - load(delta.data + lane)));
            }
        }
    }
}

SPION_INLINE int rows_to_strips(int rows) {
    return (rows + SPION_BIAS_ROWS - 1) / SPION_BIAS_ROWS;
}

// The sums of the item's rows for the gradient of a bias, one [2R + 1] for each SPION_BIAS_ROWS of
// them; null where nobody wants them.
SPION_INLINE float* bias_sums(const SpionAttentionArguments& args, const WorkItem& work) {
    if (kRelativeBias == 0 || args.d_relative_bias == nullptr) {
        return nullptr;
    }
    const long long strips = (static_cast<long long>(kLength) - 1) / SPION_BIAS_ROWS + 1;
    const long long strip = (static_cast<long long>(work.batch) * kHeads + work.head) * strips +
                            work.first / SPION_BIAS_ROWS;
    float* const sums = args.d_relative_bias + (kHeads + strip) * bias_entries();
    for (int n = 0; n < rows_to_strips(work.rows) * bias_entries(); ++n) {
        sums[n] = 0.0F;
    }
    return sums;
}

// Adds a step's dS [rows][lanes] to them, by the distance of each element.
SPION_INLINE void add_to_bias_sums(const Step& step, const WorkItem& work, int diagonal,
                                   const Scores& gradients, float* sums) {
    if (sums == nullptr) {
        return;
    }
    const float* of_row = gradients.data;
    for (int i = 0; i < step.count; ++i) {
        for (int n = 0; n < step.rows(i); ++n, of_row += kStationaryRows) {
            const auto ahead = static_cast<int>(step.first(i) + n - work.first - diagonal);
            for (int lane = 0; lane < work.rows; ++lane) {
                const int distance = ahead - lane;
                const int clipped = distance < -kRelativeBias  ? -kRelativeBias
                                    : distance > kRelativeBias ? kRelativeBias
                                                               : distance;
                sums[lane / SPION_BIAS_ROWS * bias_entries() + kRelativeBias + clipped] +=
                    of_row[lane];
            }
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
        float* const of_bias = bias_sums(*args, work);
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
            to_score_gradients(rows, lse, delta, slopes, weight_gradients, scores);
            add_to_bias_sums(step, work, diagonal_of(*args, work.batch), weight_gradients, of_bias);
            accumulate_step(step, args->k, work, key_head(work.head), kHeadDim, scores, sums);
        });
        store_transposed(sums, kHeadDim, scale.data, row_of(args->d_q, work, work.first),
                         args->d_q.row_stride, work.rows);
    }
}
