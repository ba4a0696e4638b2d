// Parameters of the GPU's fused kernels of an encoder layer (train/fused_layer.h). Plain C++, as
// kernels/train_arguments.h, whose names for sizes and T these use.
//
// A warp keeps 16 rows at a time, from what it reads to what it writes. Work item: rows_per_item
// rows, a multiple of kSpionItemRows; the last may be short. An output may be the input of the same
// shape that it replaces where that is said, and otherwise no input.
#pragma once

#include "kernels/random.h"
#include "kernels/train_arguments.h"

enum : int { kSpionWarpRows = 16, kSpionItemRows = 128 };

// A SpionDropout as a kernel wants it that draws much: the keys of every round made once, and spion_keep's
// comparison for the two elements of a word at once: with T the threshold, a half h of a word is kept iff
// min(max(h, T - 1) - (T - 1), 1) is 1. What is kept is multiplied by `scale`.
struct SpionDraws {
    unsigned int key[2 * kPhiloxRounds];
    unsigned int step;
    const SpionPassState* now;        // as in SpionDropout
    unsigned int last_dropped;        // T - 1 in both halves
    unsigned int minus_last_dropped;  // 1 - T in both halves
    unsigned int drops;               // 0: T is 0, and nothing is dropped
    float scale;
};

// Key `word` with the step in it: a counter's last word is the step, and goes into its first round's second
// key alone, where x ^ step ^ key is x ^ (step ^ key).
SPION_RANDOM_FUNCTION unsigned int spion_key_now(const SpionDraws& draws, int word) {
    const unsigned int step = draws.now != nullptr ? draws.now->pass : draws.step;
    return draws.key[word] ^ (word == 1 ? step : 0);
}

// The draws of a dropout with a probability below kSpionMostDrawn; its stream is left out.
#define kSpionMostDrawn 0.999F
SPION_RANDOM_FUNCTION SpionDraws spion_draws(const SpionDropout& dropout, float probability) {
    SpionDraws draws = {};
    unsigned int k0 = (unsigned int)dropout.seed, k1 = (unsigned int)(dropout.seed >> 32);
    for (int round = 0; round < kPhiloxRounds; ++round) {
        draws.key[2 * round] = k0;
        draws.key[2 * round + 1] = k1;
        k0 += SPION_PHILOX_STEP_0;
        k1 += SPION_PHILOX_STEP_1;
    }
    const bool drops = dropout.enabled != 0;
    draws.step = dropout.step;
    draws.now = dropout.now;
    const unsigned int threshold = drops ? spion_dropout_threshold(probability) : 0;
    draws.last_dropped = ((threshold - 1) & 0xFFFFU) * 0x00010001U;
    draws.minus_last_dropped = ((1 - threshold) & 0xFFFFU) * 0x00010001U;
    draws.drops = threshold > 0 ? 1 : 0;
    draws.scale = drops ? 1.0F / (1.0F - probability) : 1.0F;
    return draws;
}

// Which elements the dropouts behind attention keep: for every kSpionWarpRows rows
// spion_kept_words(C, F) words of each of 32 lanes. Lane 4 g + t has octet t of every group of 32 columns
// of rows g and g + 8. Word 0 is of the C channels of the output projection's branch, word 1 of those of
// the feed-forward part's, the others of the F of gelu's, 64 columns a word: pair p, elements 2j and
// 2j + 1 of the octet of row g + 8 h in group k, with p = 8 k + 4 h + j, is at bits p and 16 + p.
SPION_RANDOM_FUNCTION constexpr int spion_kept_words(int channels, int hidden) {
    return (2 * channels + hidden) / 64;
}

// norm_linear_forward: y = norm(x) W^T + b; and what the dropouts of the layer's end keep, drawn here
//   where memory binds and not instructions, unless kDropout is 0. Constants kChannels = C, kOut = O,
//   kHidden = F, kEpsilon, kDropout.
// norm_linear_backward: with d_n = d_y W the gradient of norm(x), d_x += the gradient through the
//   norm of d_n at row x, in place; a partial row an item: d_W [O, C], d_b [O], d_gamma [C],
//   d_beta [C].
struct SpionNormLinearArguments {
    const void* x;       // T [N, C]
    const float* gamma;  // [C]
    const float* beta;   // [C]
    const void* weight;  // T [O, C]
    const float* bias;   // [O]
    void* y;             // T [N, O]
    float* mean;         // [N]
    float* rstd;         // [N]
    const void* d_y;     // T [N, O]
    void* d_x;           // T [N, C]
    float* partials;     // [items, O * C + O + 2 * C]
    long long rows;      // N
    long long rows_per_item;
    unsigned int* kept;  // [ceil(N / kSpionWarpRows), spion_kept_words(C, F), 32]
    SpionDraws draws;
    unsigned int out_stream;     // of the output projection's branch
    unsigned int branch_stream;  // of the feed-forward part's
    unsigned int gelu_stream;    // behind gelu
};

// What follows attention in a layer. What dropout keeps is multiplied by `scale`.
// layer_end_forward: x_middle = x + dropout(o Wo^T + bo); hidden = norm(x_middle) W1^T + b1, gated =
//   dropout(gelu(hidden)); x_out = x_middle + dropout(gated W2^T + b2). Constants kChannels = C,
//   kHidden = F, kDropout (0: `kept` is not read), kEpsilon.
// layer_end_backward: d_x, the gradient of x_out, becomes that of x_middle in place, and d_branch
//   that of o Wo^T + bo; hidden and gated are computed again. A partial row an item: d_W1 [F, C],
//   d_b1 [F], d_W2 [C, F], d_b2 [C], d_gamma [C], d_beta [C].
struct SpionLayerEndArguments {
    const void* o;             // T [N, C]
    const void* x;             // T [N, C]
    const void* out_weight;    // T [C, C]
    const float* out_bias;     // [C]
    const float* gamma;        // [C]
    const float* beta;         // [C]
    const void* weight1;       // T [F, C]
    const float* bias1;        // [F]
    const void* weight2;       // T [C, F]
    const float* bias2;        // [C]
    const unsigned int* kept;  // [ceil(N / kSpionWarpRows), spion_kept_words(C, F), 32]
    void* x_middle;            // T [N, C]
    float* mean;               // [N] of x_middle's rows
    float* rstd;               // [N]
    void* x_out;               // T [N, C]
    void* d_x;                 // T [N, C]
    void* d_branch;            // T [N, C]
    float* partials;           // [items, 2 * F * C + F + 3 * C]
    long long rows;            // N
    long long rows_per_item;
    float scale;
};

// The norm after the last layer with the mean over a sample's rows that follows it, y[b, :] = the sum of
// norm(x[b, l, :]) over l < lengths[b], over L. The mean is of u, rows of unit mean and variance, as gamma
// and beta can follow; norm(x) is written nowhere. With first_only the first row stands for the sample, as
// in SpionMaskedMeanArguments. Constants kChannels = C, kEpsilon.
// norm_mean_forward: y and units, that mean of u; work item = one b.
// norm_mean_backward: d_x, from d_y; a partial row a sample: d_gamma [C], d_beta [C]. Work item:
//   rows_per_item rows, a multiple of kSpionItemRows.
struct SpionNormMeanArguments {
    const void* x;       // T [B, L, C]
    const float* gamma;  // [C]
    const float* beta;   // [C]
    float* units;        // [B, C]
    float* y;            // [B, C]
    const float* d_y;    // [B, C]
    void* d_x;           // T [B, L, C]
    float* partials;     // [B, 2 * C]
    const int* lengths;  // [B], 0 to L
    int batch;           // B
    int length;          // L
    int first_only;
    long long rows_per_item;
};

// The embedding before the first layer, x[b, l, :] = dropout(token[ids[b, l], :] + position[l, :]), whose
// dropout keeps what is scaled by draws.scale. For every four samples of a position kept has a word an
// octet: pair j, elements 2j and 2j + 1, of sample i of the four is at bits p and 16 + p, p = 4 i + j.
// Constants kChannels = C, kDropout (0: `kept` is neither written nor read).
// token_position_forward: x and kept. Work item = kThreads / (C / 8) positions of kSpionSamplesPerItem
//   samples; item = sample chunk * position chunks + position chunk.
// token_position_backward: d_position, and a table of partial token gradients an item. Work item =
//   positions_per_item positions, at most 8 kThreads / C, of all samples.
enum : int { kSpionKeptSamples = 4 };
struct SpionTokenPositionArguments {
    const unsigned short* ids;  // [B, L], each < V
    const float* token;         // [V, C]
    const float* position;      // [L, C]
    void* x;                    // T [B, L, C]
    unsigned int* kept;         // [ceil(B / kSpionKeptSamples), L, C / 8]
    const void* d_x;            // T [B, L, C]
    float* d_token_partials;    // [items, V, C]
    float* d_position;          // [L, C]
    int batch;                  // B
    int length;                 // L
    int vocabulary;             // V
    int positions_per_item;
    SpionDraws draws;
    unsigned int stream;
};
