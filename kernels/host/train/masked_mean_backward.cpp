// d_x[b, l, :] = d_y[b, :] / L for l < lengths[b], else 0; or d_y[b, :] for l = 0.
#include "kernels/host/train/rows.h"

extern "C" {
extern const int kChannels;
}

extern "C" void masked_mean_backward(const SpionMaskedMeanArguments* args, long long begin,
                                     long long end) {
    const int octets = kChannels / 8;
    const float scale = args->first_only ? 1.0F : 1.0F / static_cast<float>(args->length);
    const long long last = end_of_rows(end - 1, static_cast<long long>(args->batch) * args->length);
    for (long long row = begin * kSpionRowsPerItem; row < last; ++row) {
        const long long sample = row / args->length;
        const int rows = args->first_only ? 1 : args->lengths[sample];
        const bool counts = row % args->length < rows;
        for (int c = 0; c < octets; ++c) {
            const Octet gradient = load_octet(args->d_y, sample * octets + c) * scale;
            store_octet(args->d_x, row * octets + c, counts ? gradient : Octet(0.0F));
        }
    }
}
