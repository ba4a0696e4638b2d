// How many of an item's gradients are no finite numbers.
#include "kernels/host/train/rows.h"

extern "C" void count_not_finite(const SpionLossScaleArguments* args, long long begin,
                                 long long end) {
    constexpr float kLargestFinite = 3.402823466e38F;
    const int slot = args->now != nullptr ? args->now->slot : 0;
    const long long counts = slot * spion_adam_items(args->count);  // before this step's
    for (long long item = begin; item < end; ++item) {
        const long long first = item * kSpionAdamValuesPerItem;
        const long long left = args->count - first;
        const int count =
            static_cast<int>(left < kSpionAdamValuesPerItem ? left : kSpionAdamValuesPerItem);
        int not_finite = 0;
        for (int i = 0; i < count; ++i) {
            const float gradient = args->gradients[first + i];
            const float size = gradient < 0.0F ? -gradient : gradient;
            not_finite += size <= kLargestFinite ? 0 : 1;
        }
        args->not_finite[counts + item] = not_finite;
    }
}
