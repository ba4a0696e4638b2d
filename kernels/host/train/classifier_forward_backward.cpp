// The head on one sample: hidden = relu(W1 x + b1), logits = W2 hidden + b2, its cross entropy,
// and, unless d_pooled is null, the gradients of the batch's mean loss down to x.
#include "kernels/host/train/rows.h"

constexpr int kMaxClasses = 1024;  // train/kernels.h refuses more

SPION_INLINE float dot(const float* a, const float* b, int count) {
    Octet sum = 0.0F;
    int i = 0;
    for (; i + 8 <= count; i += 8) sum += load_octet(a + i, 0) * load_octet(b + i, 0);
    float total = sum_of(sum);
    for (; i < count; ++i) total += a[i] * b[i];
    return total;
}

SPION_INLINE float exp_of(float x) {
    return exp2_of(Floats(x * kLog2E))[0];
}

// The loss and whether the prediction is right; logits -> their gradients.
SPION_INLINE void cross_entropy(const SpionClassifierArguments& args, long long sample,
                                float* logits) {
    int predicted = 0;
    for (int k = 1; k < args.classes; ++k) {
        if (logits[k] > logits[predicted]) predicted = k;
    }
    const float largest = logits[predicted];
    const int label = args.labels[sample];
    const float label_logit = logits[label];
    float sum = 0.0F;
    for (int k = 0; k < args.classes; ++k) {
        logits[k] = exp_of(logits[k] - largest);
        sum += logits[k];
    }
    const long long result = (args.now != nullptr ? args.now->first_sample : 0) + sample;
    args.losses[result] = log_of(Floats(sum))[0] + largest - label_logit;
    args.correct[result] = predicted == label ? 1 : 0;
    const float scale = args.loss_scale != nullptr ? args.loss_scale->scale : 1.0F;
    const float inverse_batch = 1.0F / static_cast<float>(args.mean_over);
    for (int k = 0; k < args.classes; ++k) {
        logits[k] = (logits[k] / sum - (k == label ? 1.0F : 0.0F)) * inverse_batch * scale;
    }
}

// From d_logits, [classes], to d_hidden and d_pooled of the sample.
SPION_INLINE void backward(const SpionClassifierArguments& args, long long sample,
                           const float* hidden, const float* d_logits) {
    float* d_hidden = args.d_hidden + sample * args.hidden_width;
    float* d_pooled = args.d_pooled + sample * args.channels;
    zero(d_hidden, args.hidden_width);
    zero(d_pooled, args.channels);
    for (int k = 0; k < args.classes; ++k) {
        args.d_logits[sample * args.classes + k] = d_logits[k];
        const float* row = args.w2 + static_cast<long long>(k) * args.hidden_width;
        for (int h = 0; h < args.hidden_width; ++h) d_hidden[h] += d_logits[k] * row[h];
    }
    for (int h = 0; h < args.hidden_width; ++h) {
        if (!(hidden[h] > 0.0F)) d_hidden[h] = 0.0F;
        const float gradient = d_hidden[h];
        const float* row = args.w1 + static_cast<long long>(h) * args.channels;
        for (int c = 0; c < args.channels; ++c) d_pooled[c] += gradient * row[c];
    }
}

extern "C" void classifier_forward_backward(const SpionClassifierArguments* args, long long begin,
                                            long long end) {
    for (long long sample = begin; sample < end; ++sample) {
        const float* x = args->pooled + sample * args->channels;
        float* hidden = args->hidden + sample * args->hidden_width;
        for (int h = 0; h < args->hidden_width; ++h) {
            const float* row = args->w1 + static_cast<long long>(h) * args->channels;
            const float sum = dot(row, x, args->channels) + args->b1[h];
            hidden[h] = sum > 0.0F ? sum : 0.0F;
        }
        float logits[kMaxClasses];
        for (int k = 0; k < args->classes; ++k) {
            const float* row = args->w2 + static_cast<long long>(k) * args->hidden_width;
            logits[k] = dot(row, hidden, args->hidden_width) + args->b2[k];
        }
        cross_entropy(*args, sample, logits);
        if (args->d_pooled != nullptr) backward(*args, sample, hidden, logits);
    }
}
