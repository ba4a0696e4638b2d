// Attention of samples of one length, [B, H, L, D]: what the operators of three tensors and that of heads
// side by side share. Operands are views as the library takes them, outputs are there.
#pragma once

#include <spion/spion.h>

#include <cstdint>
#include <string>

#include "python/stable/operands.h"

namespace spion_torch {

// A tensor of four dimensions; the library checks shape and strides.
inline spion_tensor view(const Tensor& tensor, const char* name = "a tensor") {
    STD_TORCH_CHECK(tensor.dim() == 4, name, " has ", tensor.dim(),
                    " dimensions: give [B, H, L, D]");
    spion_tensor seen = {};
    seen.data = tensor.data_ptr();
    seen.dtype = static_cast<std::int32_t>(dtype_of(tensor));
    seen.rank = 4;
    for (int i = 0; i < 4; ++i) {
        seen.shape[i] = tensor.size(i);
        seen.strides[i] = tensor.stride(i);
    }
    return seen;
}

// What a call is told beside its operands.
struct Words {
    const Tensor& tables;
    const Maybe& lengths;
    std::int64_t block;
    double scale;
    const std::string& softmax;
    bool causal;
    const Maybe& spans;
};

// What a call of spion::general_attention is told beside that, and one of packed_attention in part.
struct Changes {
    double softcap = 0, dropout = 0;
    std::int64_t patterns = 1;
    Scores scores = {};
    const std::string &score, &score_derivative;
};

// Three views, [B, H, L, D], [B, Hkv, Lk, D] and [B, Hkv, Lk, Dv].
struct Operands {
    spion_tensor q, k, v;
    std::int64_t batch() const { return q.shape[0]; }
    std::int64_t heads() const { return q.shape[1]; }
};

inline spion::Attention attention_of(const Operands& operands, const Words& words,
                                     const Changes* changes) {
    const auto& [q, k, v] = operands;
    spion::Attention attention{.heads = static_cast<int>(q.shape[1]),
                               .head_dim = static_cast<int>(q.shape[3]),
                               .length = q.shape[2],
                               .block = static_cast<int>(words.block),
                               .dtype = static_cast<spion::DType>(q.dtype),
                               .scale = static_cast<float>(words.scale),
                               .softmax = softmax_of(words.softmax),
                               .key_padding = words.lengths.has_value(),
                               .causal = words.causal,
                               .key_value_heads = static_cast<int>(k.shape[1]),
                               .spans = words.spans.has_value()};
    if (changes != nullptr) {
        attention.dropout = static_cast<float>(changes->dropout);
        attention.key_length = k.shape[2];
        attention.softcap = static_cast<float>(changes->softcap);
        attention.alibi = changes->scores.slopes.has_value();
        attention.sinks = changes->scores.sinks.has_value();
        attention.patterns = static_cast<int>(changes->patterns);
        attention.value_dim = v.shape[3] == q.shape[3] ? 0 : static_cast<int>(v.shape[3]);
        attention.relative_bias = reach_of(changes->scores.bias);
        attention.score = changes->score;
        attention.score_derivative = changes->score_derivative;
    }
    return attention;
}

// The two halves of [2, B, L, 2], or of a row of 2 * B * (L + Lk) numbers.
struct SpansOf {
    SpansOf(const Maybe& spans, const Operands& operands) {
        if (!spans) {
            return;
        }
        const std::int64_t batch = operands.batch(), length = operands.q.shape[2];
        const std::int64_t keys_length = operands.k.shape[2], of_queries = 2 * batch * length;
        if (length == keys_length) {
            STD_TORCH_CHECK(spans->scalar_type() == ScalarType::Int && spans->is_contiguous() &&
                                spans->dim() == 4 && spans->size(0) == 2 &&
                                spans->size(1) == batch && spans->size(2) == length &&
                                spans->size(3) == 2,
                            "spans must be contiguous int32 [2, B, L, 2]");
            queries = static_cast<const std::int32_t*>(spans->const_data_ptr());
        } else {
            queries = vector_of<const std::int32_t>(spans, "spans of Lk keys", ScalarType::Int,
                                                    "int32", of_queries + 2 * batch * keys_length);
        }
        keys = queries + of_queries;
    }
    const std::int32_t *queries = nullptr, *keys = nullptr;
};

// The arguments of a pass that both have.
template <typename Arguments>
void fill(Arguments& arguments, const Operands& operands, const Words& words,
          const Changes* changes, const Tensor& scratch) {
    const SpansOf mask(words.spans, operands);
    arguments.tables = words.tables.const_data_ptr();
    arguments.table_bytes = bytes_of(words.tables);
    arguments.lengths = vector_of<const std::int32_t>(words.lengths, "lengths", ScalarType::Int,
                                                      "int32", operands.batch());
    arguments.workspace = scratch.data_ptr();
    arguments.workspace_bytes = static_cast<std::size_t>(scratch.numel());
    arguments.query_spans = mask.queries;
    arguments.key_spans = mask.keys;
    if (changes != nullptr) {
        fill_scores(arguments, changes->scores, operands.heads());
    }
}

// Writes o, a view as q with v's width, and returns LSE [B, H, L]. like: a tensor where they are.
inline Tensor run_forward(const Tensor& like, const Operands& operands, const spion_tensor& o,
                          const Words& words, const Changes* changes) {
    const auto& [q, k, v] = operands;
    const spion::Plan plan = plan_of(like, attention_of(operands, words, changes));
    void* const stream = stream_of(like);
    Tensor lse =
        torch::stable::new_empty(like, {q.shape[0], q.shape[1], q.shape[2]}, ScalarType::Float);
    const Tensor scratch = scratch_of(plan, like, q.shape[0], spion::Pass::kForward, stream);
    spion::ForwardArguments arguments{.q = q, .k = k, .v = v, .o = o};
    arguments.lse = static_cast<float*>(lse.mutable_data_ptr());
    fill(arguments, operands, words, changes, scratch);
    plan.forward(arguments, stream);
    return lse;
}

// What a backward pass reads of the forward pass, and of its result's gradient.
struct Passed {
    spion_tensor d_o, o;
    const Tensor& lse;
};

// Writes the gradients, views as the operands, and those of sinks and bias where `learnt` is not null.
inline void run_backward(const Tensor& like, const Operands& operands, const Passed& passed,
                         const Operands& gradients, const Words& words, const Changes* changes,
                         ScoreGradients* learnt) {
    const spion::Plan plan = plan_of(like, attention_of(operands, words, changes));
    void* const stream = stream_of(like);
    const Tensor scratch = scratch_of(plan, like, operands.batch(), spion::Pass::kBackward, stream);
    spion::BackwardArguments arguments{.q = operands.q,
                                       .k = operands.k,
                                       .v = operands.v,
                                       .o = passed.o,
                                       .d_o = passed.d_o,
                                       .d_q = gradients.q,
                                       .d_k = gradients.k,
                                       .d_v = gradients.v};
    arguments.lse = static_cast<const float*>(passed.lse.const_data_ptr());
    if (learnt != nullptr) {
        learnt->fill(arguments);
    }
    fill(arguments, operands, words, changes, scratch);
    plan.backward(arguments, stream);
}

}  // namespace spion_torch
