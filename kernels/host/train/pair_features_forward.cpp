// y[b, :] = [a, b, a * b, a - b] of a sample's two pooled sequences.
#include "kernels/host/train/rows.h"

extern "C" {
extern const int kChannels;
}

extern "C" void pair_features_forward(const SpionPairFeaturesArguments* args, long long begin,
                                      long long end) {
    for (long long sample = begin; sample < end; ++sample) {
        const float* a = args->pooled + sample * kChannels;
        const float* b = a + static_cast<long long>(args->batch) * kChannels;
        float* y = args->y + 4 * sample * kChannels;
        for (int c = 0; c < kChannels; ++c) {
            y[c] = a[c];
            y[kChannels + c] = b[c];
            y[2 * kChannels + c] = a[c] * b[c];
            y[3 * kChannels + c] = a[c] - b[c];
        }
    }
}
