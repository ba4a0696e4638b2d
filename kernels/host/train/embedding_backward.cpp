// Token gradients of a range of rows, added in order into the item's slice of its table [V, C].
#include "kernels/host/train/rows.h"

extern "C" {
extern const int kChannels;
extern const int kTableChannels;
extern const float kDropout;
}

extern "C" void embedding_backward(const SpionEmbeddingArguments* args, long long begin,
                                   long long end) {
    const int octets = kChannels / 8, slice_octets = kTableChannels / 8;
    const long long slices = kChannels / kTableChannels;
    const long long rows_per_item = spion_token_rows_per_item(args->vocabulary);
    with_dropout(args->dropout, kDropout, [&](auto factors) {
        for (long long item = begin; item < end; ++item) {
            float* table = args->d_token_partials + item / slices * args->vocabulary * kChannels;
            const long long first = item % slices * slice_octets;
            for (long long v = 0; v < args->vocabulary; ++v) {
                zero(table + v * kChannels + 8 * first, kTableChannels);
            }
            const long long begin_row = item / slices * rows_per_item;
            for (long long row = begin_row; row < args->rows && row < begin_row + rows_per_item;
                 ++row) {
                const long long token = args->ids[row];
                for (long long c = first; c < first + slice_octets; ++c) {
                    const Octet d_x =
                        factors.drop(load_octet(args->d_x, row * octets + c), row * octets + c);
                    store_octet(table, token * octets + c,
                                load_octet(table, token * octets + c) + d_x);
                }
            }
        }
    });
}
