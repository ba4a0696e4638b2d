// dK and dV of block-sparse attention. Lanes are keys; queries stream past them, so LSE and delta
// are one value a streamed row. Queries whose dO is zero add nothing and are passed over. Runs after
// the kernel of dQ, which writes delta.
#include "kernels/host/attention_walk.h"

namespace {

// scores [rows of the step][lanes] become P = 2^(score - LSE log2(e)).
SPION_INLINE void to_weights(const Step& step, const float* lse, Scores& scores) {
    float* at = scores.data;
    for (int i = 0; i < step.count; ++i) {
        const float* gather_block_lse = lse + step.first(i);
        for (int n = 0; n < step.rows(i); ++n) {
            const Floats base2 = probability_shift(gather_block_lse[n]);
            for (int lane = 0; lane < kStationaryRows; lane += kLanes, at += kLanes) {
                store(at, probability(load(at), base2));
            }
        }
    }
}

// weights [rows of the step][lanes] become dS / scale = P * (dP - delta).
SPION_INLINE void to_score_gradients(const Step& step, const float* delta,
                                     const Scores& weight_gradients, const Scores& slopes,
                                     Scores& weights) {
    float* at = weights.data;
    const float* slope = slopes.data;
    const float* gradient = weight_gradients.data;
    for (int i = 0; i < step.count; ++i) {
        const float* gather_block_delta = delta + step.first(i);
        for (int n = 0; n < step.rows(i); ++n) {
            const Floats row_delta = gather_block_delta[n];
            for (int lane = 0; lane < kStationaryRows; lane += kLanes) {
                store(at, score_gradient(load(at), load(gradient), row_delta, slope));
                at += kLanes;
                slope += kLanes;
                gradient += kLanes;
            }
        }
    }
}

SPION_INLINE void write_gradient(const Operand& sums, int width, float factor,
                                 const SpionTensor& tensor, const WorkItem& work, int valid) {
    RowValues factors;
    for (int row = 0; row < kStationaryRows; ++row) {
        factors.data[row] = row < valid ? factor : 0.0F;
    }
    store_transposed(sums, width, factors.data, key_row_of(tensor, work, work.first),
                     tensor.row_stride, work.rows);
}

}  // namespace

extern "C" void attention_key_value_gradient(const SpionAttentionArguments* args, long long begin,
                                             long long end) {
    Operand keys, values, key_sums, value_sums;
    Scores weights, weight_gradients, slopes, factors;
    for (long long row_item = begin * kPackedRows; row_item < end * kPackedRows; ++row_item) {
        fetch_key_item(*args, row_item + 1, end);
        WorkItem work = work_item(*args, row_item, true);
        if (is_beyond_end(work)) {
            continue;
        }
        const int valid = valid_keys_of(work);
        set_zero(key_sums, kHeadDim);
        set_zero(value_sums, kValueDim);
        if (valid > 0) {
            load_transposed(key_row_of(args->k, work, work.first), args->k.row_stride, valid,
                            kHeadDim, score_factor(), keys);
            load_transposed(key_row_of(args->v, work, work.first), args->v.row_stride, valid,
                            kValueDim, 1.0F, values);
            for (int member = 0; member < member_count(); ++member) {
                const int head = query_head(work.head, member);
                if (member == 0 || item_walks() > 1) {
                    open_walk(*args, true, member, work);
                }
                const long long rows =
                    work.row_base + static_cast<long long>(member) * kLength;  // of lse and delta
                const auto fetch = [&](const Step& next) {
                    fetch_step(next, args->q, kHeadDim, args->d_o, kValueDim, work, head);
                };
                for_each_step(
                    work, positions_of(*args, false, work.batch), fetch, [&](const Step& step) {
                        if (!has_gradients(step, args->d_o, work, head)) return;
                        const int count =
                            score_step(step, args->q, work, head, kHeadDim, keys, weights);
                        change_step(*args, true, step, work, head, weights, &slopes);
                        mask_step(step, work.spans, weights);
                        to_weights(step, args->lse + rows, weights);
                        if (kDropped > 0) {
                            draw_step(*args, true, step, work, head, factors);
                            apply_dropout(count, factors, weights, weight_gradients);
                            accumulate_step(step, args->d_o, work, head, kValueDim,
                                            weight_gradients, value_sums);
                        } else {
                            accumulate_step(step, args->d_o, work, head, kValueDim, weights,
                                            value_sums);
                        }
                        score_step(step, args->d_o, work, head, kValueDim, values,
                                   weight_gradients);
                        apply_dropout(count, factors, weight_gradients, weight_gradients);
                        to_score_gradients(step, args->delta + rows, weight_gradients, slopes,
                                           weights);
                        accumulate_step(step, args->q, work, head, kHeadDim, weights, key_sums);
                    });
            }
        }
        // Padded keys take no part in the softmax: their gradients are zero whatever was summed.
        write_gradient(key_sums, kHeadDim, kScale, args->d_k, work, valid);
        write_gradient(value_sums, kValueDim, 1.0F, args->d_v, work, valid);
    }
}
