// One step of AdamW on clipped gradient values.
#include "kernels/host/train/rows.h"

extern "C" void adamw(const SpionAdamArguments* arguments, long long begin, long long end) {
    constexpr float kLargestFinite = 3.402823466e38F;
    const SpionAdamArguments args = *arguments;
    if (args.loss_scale != nullptr && args.loss_scale->skip != 0) return;
    const float scale = args.loss_scale != nullptr ? args.loss_scale->used : 1.0F;
    const SpionPassState now = *args.now;
    const float step = now.learning_rate / now.bias1;
    const float decay = now.learning_rate * args.weight_decay;
    const float inverse_bias2 = 1.0F / now.bias2;
    const long long counts = now.slot * spion_adam_items(args.count);  // before this step's
    for (long long item = begin; item < end; ++item) {
        const long long first = item * kSpionAdamValuesPerItem;
        const long long left = args.count - first;
        const int count =
            static_cast<int>(left < kSpionAdamValuesPerItem ? left : kSpionAdamValuesPerItem);
        float* __restrict__ parameters = args.parameters + first;
        float* __restrict__ m = args.m + first;
        float* __restrict__ v = args.v + first;
        const float* __restrict__ gradients = args.gradients + first;
        int not_finite = 0;
        for (int i = 0; i < count; ++i) {
            float gradient = gradients[i];
            const float size = gradient < 0.0F ? -gradient : gradient;
            not_finite += size <= kLargestFinite ? 0 : 1;
            gradient /= scale;
            // Comparisons that keep a NaN.
            gradient = gradient > args.clip ? args.clip : gradient;
            gradient = gradient < -args.clip ? -args.clip : gradient;
            m[i] = args.beta1 * m[i] + (1.0F - args.beta1) * gradient;
            v[i] = args.beta2 * v[i] + (1.0F - args.beta2) * gradient * gradient;
            const float denominator = __builtin_sqrtf(v[i] * inverse_bias2) + args.epsilon;
            parameters[i] -= step * m[i] / denominator + decay * parameters[i];
        }
        if (args.not_finite != nullptr) args.not_finite[counts + item] = not_finite;
    }
}
