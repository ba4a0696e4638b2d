// The head on one sample: hidden = relu(W1 x + b1), logits = W2 hidden + b2, its cross entropy,
// and, unless d_pooled is null, the gradients of the batch's mean loss down to x. One thread block
// a sample. Dynamic shared memory: x [C], hidden [hidden], its gradient [hidden], logits [classes].
#pragma once

#include "kernels/cuda/train/contract.cuh"
#include "kernels/cuda/train/rows.cuh"

// The dot product of two rows of `count` values, in every lane of the warp.
__device__ __forceinline__ float dot_in_warp(const float* a, const float* b, int count) {
    float sum = 0.0F;
    for (int i = threadIdx.x % kWarpLanes; i < count; i += kWarpLanes) sum += a[i] * b[i];
#pragma unroll
    for (int offset = kWarpLanes / 2; offset > 0; offset /= 2) {
        sum += __shfl_xor_sync(kAllLanes, sum, offset);
    }
    return sum;
}

// The same for kRows rows of `a`, `stride` apart, whose loads are all under way at once.
template <int kRows>
__device__ __forceinline__ void dots_in_warp(float (&sums)[kRows], const float* a, int stride,
                                             const float* b, int count) {
#pragma unroll
    for (float& sum : sums) sum = 0.0F;
    for (int i = threadIdx.x % kWarpLanes; i < count; i += kWarpLanes) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) sums[r] += a[r * stride + i] * b[i];
    }
#pragma unroll
    for (int offset = kWarpLanes / 2; offset > 0; offset /= 2) {
#pragma unroll
        for (float& sum : sums) sum += __shfl_xor_sync(kAllLanes, sum, offset);
    }
}

// hidden = relu(W1 x + b1), of x in shared memory.
__device__ void hidden_layer(const SpionClassifierArguments& args, const float* x, float* hidden) {
    const int warp = threadIdx.x / kWarpLanes;
    constexpr int kRows = 8;  // of W1 that a warp takes at once
    int h = warp;
    for (; h + (kRows - 1) * kWarps < args.hidden_width; h += kRows * kWarps) {
        float sums[kRows];
        dots_in_warp(sums, args.w1 + h * args.channels, kWarps * args.channels, x, args.channels);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            hidden[h + r * kWarps] = fmaxf(sums[r] + args.b1[h + r * kWarps], 0.0F);
        }
    }
    for (; h < args.hidden_width; h += kWarps) {
        const float sum = dot_in_warp(args.w1 + h * args.channels, x, args.channels);
        hidden[h] = fmaxf(sum + args.b1[h], 0.0F);
    }
}

// Warp 0: the loss and whether the prediction is right; logits -> their gradients.
__device__ void cross_entropy(const SpionClassifierArguments& args, int sample, float* logits) {
    const int lane = threadIdx.x;
    float largest = -__int_as_float(0x7F800000);
    int predicted = 0;
    for (int k = lane; k < args.classes; k += kWarpLanes) {
        if (logits[k] > largest) {
            largest = logits[k];
            predicted = k;
        }
    }
#pragma unroll
    for (int offset = kWarpLanes / 2; offset > 0; offset /= 2) {
        const float other = __shfl_xor_sync(kAllLanes, largest, offset);
        const int other_class = __shfl_xor_sync(kAllLanes, predicted, offset);
        if (other > largest || (other == largest && other_class < predicted)) {
            largest = other;
            predicted = other_class;
        }
    }
    float sum = 0.0F;
    for (int k = lane; k < args.classes; k += kWarpLanes) sum += expf(logits[k] - largest);
#pragma unroll
    for (int offset = kWarpLanes / 2; offset > 0; offset /= 2) {
        sum += __shfl_xor_sync(kAllLanes, sum, offset);
    }
    const int label = args.labels[sample];
    if (lane == 0) {
        const long long result = (args.now != nullptr ? args.now->first_sample : 0) + sample;
        args.losses[result] = logf(sum) + largest - logits[label];
        args.correct[result] = predicted == label ? 1 : 0;
    }
    __syncwarp();
    const float scale = args.loss_scale != nullptr ? args.loss_scale->scale : 1.0F;
    for (int k = lane; k < args.classes; k += kWarpLanes) {
        const float probability = expf(logits[k] - largest) / sum;
        logits[k] =
            (probability - (k == label ? 1.0F : 0.0F)) / static_cast<float>(args.mean_over) * scale;
    }
}

extern "C" __global__ void __launch_bounds__(kThreads)
    classifier_forward_backward(const __grid_constant__ SpionClassifierArguments args) {
    float* x = reinterpret_cast<float*>(spion_shared_memory);
    float* hidden = x + args.channels;
    float* d_hidden = hidden + args.hidden_width;
    float* logits = d_hidden + args.hidden_width;
    const int sample = blockIdx.x, warp = threadIdx.x / kWarpLanes;
    const long long hidden_row = static_cast<long long>(sample) * args.hidden_width;

    for (int c = threadIdx.x; c < args.channels; c += kThreads) {
        x[c] = args.pooled[static_cast<long long>(sample) * args.channels + c];
    }
    __syncthreads();
    hidden_layer(args, x, hidden);
    __syncthreads();
    for (int i = threadIdx.x; i < args.hidden_width; i += kThreads) {
        args.hidden[hidden_row + i] = hidden[i];
    }
    for (int k = warp; k < args.classes; k += kWarps) {
        logits[k] =
            args.b2[k] + dot_in_warp(args.w2 + k * args.hidden_width, hidden, args.hidden_width);
    }
    __syncthreads();
    if (warp == 0) cross_entropy(args, sample, logits);
    if (args.d_pooled == nullptr) return;
    __syncthreads();
    for (int k = threadIdx.x; k < args.classes; k += kThreads) {
        args.d_logits[static_cast<long long>(sample) * args.classes + k] = logits[k];
    }
    for (int h = threadIdx.x; h < args.hidden_width; h += kThreads) {
        float sum = 0.0F;
#pragma unroll 8
        for (int k = 0; k < args.classes; ++k)
            sum += logits[k] * args.w2[k * args.hidden_width + h];
        d_hidden[h] = hidden[h] > 0.0F ? sum : 0.0F;
        args.d_hidden[hidden_row + h] = d_hidden[h];
    }
    __syncthreads();
    for (int c = threadIdx.x; c < args.channels; c += kThreads) {
        float sum = 0.0F;
#pragma unroll 32
        for (int h = 0; h < args.hidden_width; ++h)
            sum += d_hidden[h] * args.w1[h * args.channels + c];
        args.d_pooled[static_cast<long long>(sample) * args.channels + c] = sum;
    }
}
