// The one parameter of every attention kernel, on both back ends. Plain C++ without includes: it is
// compiled into the caller, into the CUDA source and into the host bodies alike.
#pragma once

// A [B, H, L, D] view; K, V and their gradients have heads and positions of their own number, V and
// O a dimension of their own. Element (b, h, l, d) lies at data[b * batch_stride + h * head_stride +
// l * row_stride + d]; strides in elements; rows and strides are multiples of 16 bytes, a row
// stride less than 2^31 bytes.
struct SpionTensor {
    void* data;
    long long batch_stride;
    long long head_stride;
    long long row_stride;
};

// What a pruned element counts as (ir/attention.h), the values of the constant kSoftmax.
enum SpionSoftmax { SPION_SOFTMAX_MASKED = 0, SPION_SOFTMAX_PRUNED_ZERO = 1, SPION_SOFTMAXES };

// Which elements the operation has (ir/attention.h), the values of the constant kMask.
enum SpionMask { SPION_MASK_NONE = 0, SPION_MASK_CAUSAL = 1, SPION_MASK_SPANS = 2, SPION_MASKS };

// Query rows whose part of the gradient of a bias by relative position is summed apart.
enum { SPION_BIAS_ROWS = 16 };

// Which random numbers decide what dropout drops (kernels/random.h): a launch reads them, and the
// caller gives others to the next one. Forward and backward of one call need the same.
struct SpionDropoutState {
    unsigned long long seed;
    unsigned offset;
    int enabled;  // 0: nothing is dropped, and what is kept counts once, as when a model is evaluated
};

// Which fields a kernel reads and writes (R, W):
//   attention_forward              R q k v        W o lse
//   attention_query_gradient       R q k v o d_o lse   W d_q delta
//   attention_key_value_gradient   R q k v d_o lse delta   W d_k d_v
//   attention_delta                R o d_o        W delta, d_q of tiles without gather blocks
//   attention_gradients            R q k v d_o lse delta   W d_k d_v d_q
//   score_summary                  R q k lse      W summary, scores unless null
// Work items: for attention kernels B * H * tiles, item = (b * H + h) * tiles + w with w the
// position in TileProgram::order; for score_summary see `summary` below.
struct SpionAttentionArguments {
    SpionTensor q, k, v, o;
    SpionTensor d_o, d_q, d_k, d_v;
    float* lse;    // [B, H, L] natural logarithm
    float* delta;  // [B, H, L] rowsum(dO * O)
    union {
        const int* lengths;  // [B] valid keys of each sample, in [0, Lk]; null without key padding
        // [B + 1] of kKeyStarts, which has no key padding: `starts` below is then of queries alone,
        // and key l of sample b lies in row key_starts[b] + l of tensors [H, Tk, D].
        const int* key_starts;
    };
    const int* order;          // [tiles]      TileProgram's tables
    const int* offsets;        // [tiles + 1]
    const int* gather_blocks;  // [offsets[tiles]]
    int tiles;
    int batch;  // B
    // score_summary, work item t = I * tiles_per_side + J of summary tiles of `summary_tile` rows
    // and columns: the tile's mean probabilities over batch and heads, summed with the weights of
    // discovery (compiler/discovery/score_summary.h), one sum for each of 7 neighbouring blocks.
    //
    // Attention with a bias by relative position (ir/attention.h), which score_summary has not:
    // d_relative_bias is null where the gradient is not wanted. Behind its [H, 2R + 1] lie the sums
    // that attention_query_gradient leaves for attention_bias_gradient, one for SPION_BIAS_ROWS
    // query rows each: [B, H, ceil(L / SPION_BIAS_ROWS), 2R + 1]. That kernel is told both places,
    // as the gradient may be wanted elsewhere.
    union {
        float* summary;              // [tiles_per_side^2, 7]
        const float* relative_bias;  // [H, 2R + 1], natural as scores are
        const float* bias_sums;      // of attention_bias_gradient, which reads them alone
    };
    union {
        float* scores;  // [L, L] mean probabilities, or null: only the `exact` mode asks for it
        float* d_relative_bias;
    };
    // [offsets[tiles]] TileProgram's bits, of packed tiles.
    const unsigned* block_row_masks;
    // Of SPION_MASK_SPANS: a first position and an end, neither decreasing in a sample.
    const int* query_spans;  // [B, L, 2] the keys that a query keeps
    const int* key_spans;    // [B, Lk, 2] the queries that keep a key
    // Null where the operation has none of it (ir/attention.h).
    const SpionDropoutState* dropout;
    const float* alibi_slopes;  // [H]
    const float* sinks;         // [H], natural as scores are
    float* d_sinks;             // [H], of attention_sink_gradient; null where it is not wanted
    // Of kVarlen, else null: position l of sample b lies in row starts[b] + l of tensors [H, T, D],
    // whose batch stride nobody reads, and b has starts[b + 1] - starts[b] positions.
    const int* starts;  // [B + 1]
    int rows;           // T
    int key_rows;       // Tk, of kKeyStarts
};
