// One step of AdamW on clipped gradient values, and the parameters' 16-bit copy.
#pragma once

#include "kernels/cuda/train/contract.cuh"
#include "kernels/cuda/train/rows.cuh"

extern "C" __global__ void __launch_bounds__(kThreads)
    adamw(const __grid_constant__ SpionAdamArguments args) {
    // Every work item reads the same: a step is done or left out as a whole.
    if (args.loss_scale != nullptr && args.loss_scale->skip != 0) return;
    const float scale = args.loss_scale != nullptr ? args.loss_scale->used : 1.0F;
    const long long first = static_cast<long long>(blockIdx.x) * kSpionAdamValuesPerItem;
    const SpionPassState now = *args.now;
    const float step = now.learning_rate / now.bias1;
    const float inverse_bias2 = 1.0F / now.bias2;
    constexpr float kLargestFinite = 3.402823466e38F;
    int not_finite = 0;
    for (int n = threadIdx.x; n < kSpionAdamValuesPerItem; n += kThreads) {
        const long long i = first + n;
        const bool valid = i < args.count;
        float gradient = valid ? args.gradients[i] : 0.0F;
        not_finite += __syncthreads_count(!(fabsf(gradient) <= kLargestFinite));
        if (!valid) continue;
        if (args.loss_scale != nullptr) gradient /= scale;
        // Comparisons instead of min and max: those would turn a NaN into a bound.
        gradient = gradient > args.clip ? args.clip : gradient < -args.clip ? -args.clip : gradient;
        const float m = args.beta1 * args.m[i] + (1.0F - args.beta1) * gradient;
        const float v = args.beta2 * args.v[i] + (1.0F - args.beta2) * gradient * gradient;
        float parameter = args.parameters[i];
        parameter -= __fdividef(step * m, sqrtf(v * inverse_bias2) + args.epsilon) +
                     now.learning_rate * args.weight_decay * parameter;
        args.m[i] = m;
        args.v[i] = v;
        args.parameters[i] = parameter;
        if (args.parameters_low != nullptr) {
            static_cast<unsigned short*>(args.parameters_low)[i] =
                static_cast<unsigned short>(Element::pack(parameter, 0.0F));
        }
    }
    if (threadIdx.x == 0 && args.not_finite != nullptr) {
        args.not_finite[now.slot * gridDim.x + blockIdx.x] = not_finite;
    }
}
