// One row of d_W1 or d_W2 and its bias a work item: the sum over the batch, in order, of (gradient
// of the row's output) * (the layer's input).
#include "kernels/host/train/rows.h"

// outputs: [batch, width] gradients, of which column `row`; inputs: [batch, count].
SPION_INLINE void weight_row(const float* outputs, int width, int row, const float* inputs,
                             int count, int batch, float* d_weight, float* d_bias) {
    zero(d_weight, count);
    float bias = 0.0F;
    for (long long b = 0; b < batch; ++b) {
        const float gradient = outputs[b * width + row];
        const float* input = inputs + b * count;
        for (int i = 0; i < count; ++i) d_weight[i] += gradient * input[i];
        bias += gradient;
    }
    *d_bias = bias;
}

extern "C" void classifier_weight_gradients(const SpionClassifierArguments* args, long long begin,
                                            long long end) {
    for (long long item = begin; item < end; ++item) {
        const int row = static_cast<int>(item);
        if (row < args->hidden_width) {
            weight_row(args->d_hidden, args->hidden_width, row, args->pooled, args->channels,
                       args->batch, args->d_w1 + item * args->channels, args->d_b1 + row);
        } else {
            const int k = row - args->hidden_width;
            weight_row(args->d_logits, args->classes, k, args->hidden, args->hidden_width,
                       args->batch, args->d_w2 + static_cast<long long>(k) * args->hidden_width,
                       args->d_b2 + k);
        }
    }
}
