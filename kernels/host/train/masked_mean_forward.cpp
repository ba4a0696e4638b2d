// y[b, :] = (1 / L) * sum of x[b, l, :] over l < lengths[b], or x[b, 0, :]; a work item is a sample.
#include "kernels/host/train/rows.h"

extern "C" {
extern const int kChannels;
}

extern "C" void masked_mean_forward(const SpionMaskedMeanArguments* args, long long begin,
                                    long long end) {
    const int octets = kChannels / 8;
    for (long long sample = begin; sample < end; ++sample) {
        float* sums = args->y + sample * kChannels;
        zero(sums, kChannels);
        const long long first = sample * args->length;
        const int rows = args->first_only ? 1 : args->lengths[sample];
        for (long long row = first; row < first + rows; ++row) {
            for (int c = 0; c < octets; ++c) {
                store_octet(sums, c, load_octet(sums, c) + load_octet(args->x, row * octets + c));
            }
        }
        const float scale = args->first_only ? 1.0F : 1.0F / static_cast<float>(args->length);
        for (int c = 0; c < octets; ++c) store_octet(sums, c, load_octet(sums, c) * scale);
    }
}
