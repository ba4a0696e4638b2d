// d_position[l, :] = sum over the samples b, in order, of dropout(d_x[b, l, :]); a work item is an
// l.
#include "kernels/host/train/rows.h"

extern "C" {
extern const int kChannels;
extern const float kDropout;
}

extern "C" void embedding_position_backward(const SpionEmbeddingArguments* args, long long begin,
                                            long long end) {
    const int octets = kChannels / 8;
    zero(args->d_position + begin * kChannels, (end - begin) * kChannels);
    with_dropout(args->dropout, kDropout, [&](auto factors) {
        for (long long first = 0; first < args->rows; first += args->length) {
            for (long long l = begin; l < end; ++l) {
                for (int c = 0; c < octets; ++c) {
                    const long long i = (first + l) * octets + c;
                    const Octet d_x = factors.drop(load_octet(args->d_x, i), i);
                    store_octet(args->d_position, l * octets + c,
                                load_octet(args->d_position, l * octets + c) + d_x);
                }
            }
        }
    });
}
