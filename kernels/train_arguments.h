// Parameters of the training step's kernels, on both back ends. Plain C++ without includes: it is
// compiled into the caller, into the CUDA source and into the host bodies alike.
//
// Sizes: N = B * L tokens, C = d_model, F = feed-forward width. "T" is the activation type (fp32 on
// the host, bf16 or fp16 on a GPU); parameters, statistics and sums are fp32. Compile-time constants of
// every kernel: kChannels (C, or the width of the rows it walks), kDropout (probability, 0 for
// none), kEpsilon (layer norm). C, F and 3C are multiples of 8, C at most 1024, F at most 4096. A
// work item is kSpionRowsPerItem consecutive rows unless said otherwise; the last may be short.
// Sums over rows leave one partial row a work item, added up in a fixed order by sum_partials: no
// atomics, so a step is bitwise repeatable. Aliasing: an output may be the same buffer as an input
// of the same shape, unless said otherwise. Dropout keeps element i of stream s in step t iff
// random bits (seed, t, s, i) say so (kernels/random.h), so the backward pass recomputes the mask;
// kept values scale by 1/(1-p).
#pragma once

#ifdef __CUDACC__
#define SPION_LAYOUT_FUNCTION __host__ __device__ constexpr
#else
#define SPION_LAYOUT_FUNCTION constexpr
#endif

// 256 rows: at N = 524288, C = 64 the partial rows are 1 % of what the kernel moves, and there are
// still 2048 items, about two waves of thread blocks on the largest GPU.
enum : int { kSpionRowsPerItem = 256 };

// Work items of a kernel that walks `rows` rows; also the partial rows that it writes.
SPION_LAYOUT_FUNCTION long long spion_row_items(long long rows) {
    return (rows + kSpionRowsPerItem - 1) / kSpionRowsPerItem;
}

// Token rows that share one partial table [V, C] of embedding_backward: enough for the tables to
// weigh at most half of the gradient that they are summed from.
SPION_LAYOUT_FUNCTION long long spion_token_rows_per_item(int vocabulary) {
    return vocabulary <= 256 ? 1024 : 4LL * vocabulary;
}
SPION_LAYOUT_FUNCTION long long spion_token_items(long long rows, int vocabulary) {
    return (rows + spion_token_rows_per_item(vocabulary) - 1) /
           spion_token_rows_per_item(vocabulary);
}

// A work item of embedding_forward is 32 positions of 8 samples, so that a position's row is read
// once for all of them; item = sample chunk * position chunks + position chunk.
enum : int { kSpionPositionsPerItem = 32 };
enum : int { kSpionSamplesPerItem = 8 };
SPION_LAYOUT_FUNCTION long long spion_position_chunks(int length) {
    return (length + kSpionPositionsPerItem - 1) / kSpionPositionsPerItem;
}
SPION_LAYOUT_FUNCTION long long spion_embedding_items(long long batch, int length) {
    return (batch + kSpionSamplesPerItem - 1) / kSpionSamplesPerItem *
           spion_position_chunks(length);
}

// Columns of one work item of sum_partials, values of one of adamw.
enum : int { kSpionSumColumnsPerItem = 8, kSpionSumColumnsPerBlock = 32 };
enum : int { kSpionAdamValuesPerItem = 1024 };

// What differs from one pass of training to the next, but for its batch. It lies in device memory, so that
// the arguments of every launch are the same for each pass, and a CUDA graph of them is of use again.
struct SpionPassState {
    long long first_sample = 0;  // the pass's losses and predictions begin there
    unsigned int pass = 0;       // what dropout draws as `step`
    int slot = 0;                // the step's counts and its loss scale lie there
    float learning_rate = 0;
    float bias1 = 1, bias2 = 1;  // 1 - beta^t of AdamW
};

// Which random bits a dropout draws. `step` and `stream` differ for every use in a training run.
struct SpionDropout {
    unsigned long long seed;
    unsigned int step;
    unsigned int stream;
    int enabled;                          // 0 in evaluation: values pass unscaled
    const SpionPassState* now = nullptr;  // `step` is its `pass`; null: it is what stands here
};

// `dropout` with its step in place.
SPION_LAYOUT_FUNCTION SpionDropout spion_dropout_now(SpionDropout dropout) {
    if (dropout.now != nullptr) dropout.step = dropout.now->pass;
    return dropout;
}

// embedding_forward: x[n, :] = dropout(token[ids[n], :] + position[n % L, :]); for its work items
//   see spion_embedding_items.
// embedding_backward: partial token gradients, one table [V, C] for every
//   spion_token_rows_per_item(V) rows. A work item is kTableChannels channels of one such table:
//   item = table * (C / kTableChannels) + slice (the slice is what fits into shared memory).
// embedding_position_backward: work item = one position l, sums over b in a fixed order.
struct SpionEmbeddingArguments {
    const unsigned short* ids;  // [N], each < V
    const float* token;         // [V, C]
    const float* position;      // [L, C]
    void* x;                    // T [N, C]
    const void* d_x;            // T [N, C]
    float* d_token_partials;    // [spion_token_items(N, V), V, C]
    float* d_position;          // [L, C]
    long long rows;             // N, a multiple of L
    int length;                 // L
    int vocabulary;             // V
    SpionDropout dropout;
};

// residual_norm_forward: x_out = x + dropout(branch) (x itself when branch is null, and x_out is
// not
//   written); y = (x_out - mean) * rstd * gamma + beta, statistics over the row of x_out as stored.
// residual_norm_backward: d_x = d_residual (0 when null) + the gradient through the norm of d_y at
//   row `x_out`; d_branch = dropout(d_x) with the same mask when not null. Partial sums over rows,
//   side by side: d_gamma, d_beta, and d_branch (which is the gradient of the bias that made the
//   branch; zeros when d_branch is null).
struct SpionNormArguments {
    const void* x;           // T [N, C]
    const void* branch;      // T [N, C] or null
    void* x_out;             // T [N, C]; what the norm saw (x when branch is null)
    const float* gamma;      // [C]
    const float* beta;       // [C]
    void* y;                 // T [N, C]
    float* mean;             // [N]
    float* rstd;             // [N] 1 / sqrt(var + eps)
    const void* d_y;         // T [N, C]
    const void* d_residual;  // T [N, C] or null
    void* d_x;               // T [N, C]
    void* d_branch;          // T [N, C] or null
    float* partials;         // [spion_row_items(N), 3, C]
    long long rows;          // N
    SpionDropout dropout;    // of the branch
};

// gelu_dropout_forward: y = dropout(gelu(x)), gelu(x) = x/2 (1 + erf(x / sqrt 2)); kChannels = F.
// gelu_dropout_backward: d_x = dropout(d_y) * gelu'(x), and partial column sums of d_x.
struct SpionGeluArguments {
    const void* x;           // T [N, F]
    void* y;                 // T [N, F]
    const void* d_y;         // T [N, F]
    void* d_x;               // T [N, F]
    float* d_bias_partials;  // [spion_row_items(N), F]
    long long rows;          // N
    SpionDropout dropout;
};

// feed_forward (GPU only; T = bf16): hidden = x W1^T + b1, gated = dropout(gelu(hidden)),
//   y = gated W2^T + b2. Compile-time constants kChannels = C and kHidden = F, multiples of 64.
//   Work item: rows_per_item rows, a multiple of kSpionLinearTileRows. No output may be an input.
enum : int { kSpionLinearTileRows = 64 };
struct SpionFeedForwardArguments {
    const void* x;        // T [N, C]
    const void* weight1;  // T [F, C]
    const float* bias1;   // [F]
    const void* weight2;  // T [C, F]
    const float* bias2;   // [C]
    void* hidden;         // T [N, F]
    void* gated;          // T [N, F]
    void* y;              // T [N, C]
    long long rows;       // N
    long long rows_per_item;
    SpionDropout dropout;  // after gelu
};

// linear_backward (GPU only; T = bf16): the backward pass of y = x W^T + b in one pass over d_y,
//   d_x = d_y W and, one partial row a work item, d_W = d_y^T x and then the column sums of d_y.
//   Compile-time constants kOut = O and kIn = I; with kGelu, d_y is the gradient of
//   dropout(gelu(y)) and is taken through that first, at y = hidden. Work item: rows_per_item rows,
//   a multiple of kSpionLinearTileRows. d_x may be none of the inputs.
struct SpionLinearBackwardArguments {
    const void* d_y;     // T [N, O]
    const void* hidden;  // T [N, O]; null unless kGelu
    const void* x;       // T [N, I]
    const void* weight;  // T [O, I]
    void* d_x;           // T [N, I]
    float* partials;     // [ceil(N / rows_per_item), O * I + O]
    long long rows;      // N
    long long rows_per_item;
    SpionDropout dropout;  // after gelu
};

// column_sums: partials[item, c] = sum over the item's rows of x[row, c]
struct SpionColumnSumArguments {
    const void* x;    // T [rows, kChannels]
    float* partials;  // [spion_row_items(rows), kChannels]
    long long rows;
};

// sum_partials: of each of `sums`, out[c] = sum over i in [0, count) of partials[i * stride + c], as a
//   tree of fixed shape; work item = kSpionSumColumnsPerItem columns, on a GPU kSpionSumColumnsPerBlock of which
//   a sum's last ones may be missing, those of the first sum first.
struct SpionPartialSum {
    const float* partials;  // [count, stride], of which the first `columns` of each row
    float* out;             // [columns]
    long long count;
    long long columns;  // a multiple of 8
    long long stride;   // >= columns, a multiple of 8
};
enum : int { kSpionMostSums = 64 };
SPION_LAYOUT_FUNCTION long long spion_sum_blocks(long long columns) {
    return (columns + kSpionSumColumnsPerBlock - 1) / kSpionSumColumnsPerBlock;
}
struct SpionSumPartialsArguments {
    SpionPartialSum sums[kSpionMostSums];
    int count;
};

// masked_mean_forward: y[b, :] = (1/L) * sum of x[b, l, :] over l < lengths[b]; work item = one b.
// masked_mean_backward: d_x[b, l, :] = d_y[b, :] / L for l < lengths[b], else 0; work item = rows.
// With first_only the first row stands for the sample: y[b, :] = x[b, 0, :].
struct SpionMaskedMeanArguments {
    const void* x;       // T [B, L, C]
    float* y;            // [B, C]
    const float* d_y;    // [B, C]
    void* d_x;           // T [B, L, C]
    const int* lengths;  // [B], each in [0, L]
    int batch;
    int length;
    int first_only;  // 1 or 0
};

// What the head compares two sequences of a sample by, of their pooled outputs a and b.
// pair_features_forward: y[b, :] = [a, b, a * b, a - b]; pair_features_backward: the gradients of a
//   and b; work item = one sample of either.
struct SpionPairFeaturesArguments {
    const float* pooled;  // [2, B, C]: a of every sample, then b
    float* y;             // [B, 4C]
    const float* d_y;     // [B, 4C]
    float* d_pooled;      // [2, B, C]
    int batch;            // B
};

// The state of dynamic loss scaling (Micikevicius et al.: Mixed precision training, ICLR 2018), in
// device memory: the gradients of a step are computed times `scale`, so that small ones do not
// vanish in fp16. Where one of them overflows the step is left out and the scale halved, down to 1;
// after growth_steps steps without that it is doubled, as long as it stays finite.
struct SpionLossScale {
    float scale = 1;     // of the next gradients
    float used = 1;      // of the gradients looked at last
    int skip = 0;        // 1 where those were not all finite
    int good_steps = 0;  // since the scale changed
    int skipped = 0;     // steps in all
};

SPION_LAYOUT_FUNCTION void spion_next_loss_scale(SpionLossScale& state, bool overflow,
                                                 int growth_steps) {
    const float most = 1.7e38F;  // twice as much is finite still
    state.used = state.scale;
    state.skip = overflow ? 1 : 0;
    state.skipped += state.skip;
    state.good_steps = overflow ? 0 : state.good_steps + 1;
    if (overflow) {
        state.scale = state.scale > 2.0F ? state.scale / 2.0F : 1.0F;
    } else if (state.good_steps >= growth_steps) {
        state.good_steps = 0;
        if (state.scale < most) state.scale *= 2.0F;
    }
}

// The head on pooled [B, C]: hidden = relu(pooled W1^T + b1), logits = hidden W2^T + b2, mean cross
// entropy over the batch, and the whole backward of it. All fp32, small: work item = one sample for
// classifier_forward_backward (probabilities, loss and d_pooled, d_hidden, d_logits of that
// sample), then classifier_weight_gradients, work item = one row of W1 or W2 (hidden + classes of
// them). Losses and d_logits: losses[b] is sample b's own cross entropy; the gradients are of their
// sum divided by mean_over. Evaluation: with d_pooled null nothing but hidden, losses and correct
// is written.
struct SpionClassifierArguments {
    const float* pooled;  // [B, C]
    const float* w1;      // [hidden, C]
    const float* b1;      // [hidden]
    const float* w2;      // [classes, hidden]
    const float* b2;      // [classes]
    const int* labels;    // [B]
    float* hidden;        // [B, hidden] after relu
    float* d_hidden;      // [B, hidden] before relu
    float* d_logits;      // [B, classes] before the softmax
    float* d_pooled;      // [B, C]
    float* losses;        // [B], from now->first_sample on
    int* correct;         // [B] 1 where the first largest logit is the label; from there on, too
    float* d_w1;          // [hidden, C]
    float* d_b1;          // [hidden]
    float* d_w2;          // [classes, hidden]
    float* d_b2;          // [classes]
    int batch, channels, hidden_width, classes;
    int mean_over;  // B, or the samples of all passes whose gradients a step adds up
    const SpionLossScale* loss_scale =
        nullptr;                          // the gradients are multiplied by its `scale`; null: by 1
    const SpionPassState* now = nullptr;  // null: from the first on
};

// Dynamic loss scaling, after all gradients of a step are there. count_not_finite, work item =
// kSpionAdamValuesPerItem values: not_finite; then update_loss_scale, one work item: state.
struct SpionLossScaleArguments {
    SpionLossScale* state;
    const float* gradients;  // [count]
    int* not_finite;         // [slots, ceil(count / kSpionAdamValuesPerItem)]
    float* used;             // [slots] the scale of this step, or null
    long long count;
    int growth_steps;
    const SpionPassState* now = nullptr;  // null: slot 0
};

// The work items of adamw and count_not_finite.
SPION_LAYOUT_FUNCTION long long spion_adam_items(long long count) {
    return (count + kSpionAdamValuesPerItem - 1) / kSpionAdamValuesPerItem;
}

// adamw: gradient values clipped to [-clip, clip], then AdamW with decoupled weight decay
//   p -= lr * (m / bias1 / (sqrt(v / bias2) + epsilon) + weight_decay * p);
//   work item = kSpionAdamValuesPerItem values.
// A gradient that is not finite is counted (the count decides nothing; training reports it): an
// infinity is clipped, a NaN stays one.
struct SpionAdamArguments {
    float* parameters;       // [count]
    void* parameters_low;    // T [count], the copy that the GEMMs read; null on the host
    const float* gradients;  // [count]
    float* m;                // [count]
    float* v;                // [count]
    int* not_finite;         // [slots, ceil(count / kSpionAdamValuesPerItem)], or null
    long long count;
    float beta1, beta2, epsilon, weight_decay, clip;
    const SpionPassState* now;  // learning_rate, bias1, bias2, slot
    // Gradients are divided by its `used`, and with `skip` nothing is written; null: neither.
    const SpionLossScale* loss_scale = nullptr;
};
