// One row of d_W1 or d_W2 and its bias a thread block: the sum over the batch of (gradient of the
// row's output) * (the layer's input). Warp w takes the samples w, w + kWarps, ...; warps add in
// order.
#pragma once

#include "kernels/cuda/train/contract.cuh"
#include "kernels/cuda/train/rows.cuh"

extern "C" __global__ void __launch_bounds__(kThreads)
    classifier_weight_gradients(const __grid_constant__ SpionClassifierArguments args) {
    __shared__ float warp_sums[kWarps][kWarpLanes];
    const bool first_layer = static_cast<int>(blockIdx.x) < args.hidden_width;
    const int row = first_layer ? blockIdx.x : blockIdx.x - args.hidden_width;
    const int outputs = first_layer ? args.hidden_width : args.classes;
    const int inputs = first_layer ? args.channels : args.hidden_width;
    const float* d_output = first_layer ? args.d_hidden : args.d_logits;  // [B, outputs]
    const float* input = first_layer ? args.pooled : args.hidden;         // [B, inputs]
    float* d_weight = (first_layer ? args.d_w1 : args.d_w2) + row * inputs;
    float* d_bias = (first_layer ? args.d_b1 : args.d_b2) + row;

    const int warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;
    // Column `inputs` stands for the bias, whose input is 1.
    for (int base = 0; base <= inputs; base += kWarpLanes) {
        const int column = base + lane;
        float sum = 0.0F;
#pragma unroll 16
        for (int b = warp; b < args.batch; b += kWarps) {
            const float gradient = d_output[static_cast<long long>(b) * outputs + row];
            const float value =
                column < inputs ? input[static_cast<long long>(b) * inputs + column] : 1.0F;
            sum += gradient * value;
        }
        warp_sums[warp][lane] = sum;
        __syncthreads();
        if (warp == 0 && column <= inputs) {
            float total = 0.0F;
            for (int w = 0; w < kWarps; ++w) total += warp_sums[w][lane];
            *(column < inputs ? d_weight + column : d_bias) = total;
        }
        __syncthreads();
    }
}
