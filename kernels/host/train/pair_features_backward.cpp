// The gradients of a sample's two pooled sequences a and b from those of [a, b, a * b, a - b].
#include "kernels/host/train/rows.h"

extern "C" {
extern const int kChannels;
}

extern "C" void pair_features_backward(const SpionPairFeaturesArguments* args, long long begin,
                                       long long end) {
    const long long other = static_cast<long long>(args->batch) * kChannels;  // from a to b
    for (long long sample = begin; sample < end; ++sample) {
        const float* a = args->pooled + sample * kChannels;
        const float* d_y = args->d_y + 4 * sample * kChannels;
        float* d_a = args->d_pooled + sample * kChannels;
        for (int c = 0; c < kChannels; ++c) {
            const float d_product = d_y[2 * kChannels + c], d_difference = d_y[3 * kChannels + c];
            d_a[c] = d_y[c] + d_product * a[other + c] + d_difference;
            d_a[other + c] = d_y[kChannels + c] + d_product * a[c] - d_difference;
        }
    }
}
