// spion::varlen_attention and its _backward: sequences that lie end to end, [T, H, D] with cu_seqlens,
// as python/spion/torch/_sequences.py has them.
#include <cstdint>
#include <limits>
#include <tuple>

#include "python/stable/operands.h"

namespace {

using namespace spion_torch;

// A [T, H, D] tensor as the library takes it, [H, T, D]; it checks shape and strides.
spion_tensor view(const Tensor& tensor) {
    spion_tensor seen = {};
    seen.data = tensor.data_ptr();
    seen.dtype = static_cast<std::int32_t>(dtype_of(tensor));
    seen.rank = 3;
    constexpr int kFrom[] = {1, 0, 2};
    for (int i = 0; i < 3; ++i) {
        seen.shape[i] = tensor.size(kFrom[i]);
        seen.strides[i] = tensor.stride(kFrom[i]);
    }
    return seen;
}

// What a call is told beside its operands.
struct Words {
    const Tensor &tables, &cu_seqlens, &spans;
    std::int64_t length, block;
    double scale;
    const std::string& softmax;
    double softcap, dropout;
    std::int64_t patterns;
    Scores scores;
    std::int64_t sequence_patterns;
    const Maybe& key_cu_seqlens;
    std::int64_t key_length;  // 0: length
    const std::string &score, &score_derivative;

    std::int64_t batch() const { return cu_seqlens.size(0) - 1; }
    std::int64_t keys() const { return key_length == 0 ? length : key_length; }
};

spion::Plan plan_for(const Tensor& q, const Tensor& k, const Tensor& v, const Words& words) {
    for (const Tensor* operand : {&q, &k, &v}) {
        STD_TORCH_CHECK(operand->dim() == 3, "a tensor has ", operand->dim(),
                        " dimensions: give [T, H, D]");
    }
    STD_TORCH_CHECK(words.cu_seqlens.dim() == 1 && words.cu_seqlens.size(0) > 1,
                    "cu_seqlens must be int32 [B + 1], of at least one sequence");
    return plan_of(q, {.heads = static_cast<int>(q.size(1)),
                       .head_dim = static_cast<int>(q.size(2)),
                       .length = words.length,
                       .block = static_cast<int>(words.block),
                       .dtype = dtype_of(q),
                       .scale = static_cast<float>(words.scale),
                       .softmax = softmax_of(words.softmax),
                       .key_value_heads = static_cast<int>(k.size(1)),
                       .spans = true,
                       .dropout = static_cast<float>(words.dropout),
                       .key_length = words.keys(),
                       .softcap = static_cast<float>(words.softcap),
                       .alibi = words.scores.slopes.has_value(),
                       .sinks = words.scores.sinks.has_value(),
                       .patterns = static_cast<int>(words.patterns),
                       .value_dim = v.size(2) == q.size(2) ? 0 : static_cast<int>(v.size(2)),
                       .varlen = true,
                       .relative_bias = reach_of(words.scores.bias),
                       .score = words.score,
                       .score_derivative = words.score_derivative,
                       .key_starts = words.key_cu_seqlens.has_value(),
                       .sequence_patterns = static_cast<int>(words.sequence_patterns)});
}

// The arguments of a pass that both have.
template <typename Arguments>
void fill(Arguments& arguments, const Words& words, std::int64_t heads, const Tensor& scratch) {
    const std::int64_t batch = words.batch(), of_queries = 2 * batch * words.length;
    const std::int64_t wanted = of_queries + 2 * batch * words.keys();
    STD_TORCH_CHECK(words.spans.scalar_type() == ScalarType::Int && words.spans.is_contiguous() &&
                        words.spans.numel() == wanted,
                    "spans must be contiguous int32 of 2 * B * (L + Lk) = ", wanted, " numbers");
    arguments.tables = words.tables.const_data_ptr();
    arguments.table_bytes = bytes_of(words.tables);
    arguments.workspace = scratch.data_ptr();
    arguments.workspace_bytes = static_cast<std::size_t>(scratch.numel());
    arguments.query_spans = static_cast<const std::int32_t*>(words.spans.const_data_ptr());
    arguments.key_spans = arguments.query_spans + of_queries;
    arguments.sequences = batch;
    arguments.cu_seqlens = vector_of<const std::int32_t>(words.cu_seqlens, "cu_seqlens",
                                                         ScalarType::Int, "int32", batch + 1);
    arguments.key_cu_seqlens = vector_of<const std::int32_t>(words.key_cu_seqlens, "key_cu_seqlens",
                                                             ScalarType::Int, "int32", batch + 1);
    fill_scores(arguments, words.scores, heads);
}

std::tuple<Tensor, Tensor> forward(const Tensor& q, const Tensor& k, const Tensor& v,
                                   const Words& words) {
    const spion::Plan plan = plan_for(q, k, v, words);
    void* const stream = stream_of(q);
    const std::int64_t heads = q.size(1);
    Tensor o = torch::stable::new_empty(q, {q.size(0), heads, v.size(2)});
    Tensor lse =
        torch::stable::new_empty(q, {words.batch(), heads, words.length}, ScalarType::Float);
    torch::stable::fill_(lse, -std::numeric_limits<double>::infinity());
    const Tensor scratch = scratch_of(plan, q, words.batch(), spion::Pass::kForward, stream);
    spion::ForwardArguments arguments{.q = view(q), .k = view(k), .v = view(v), .o = view(o)};
    arguments.lse = static_cast<float*>(lse.mutable_data_ptr());
    fill(arguments, words, heads, scratch);
    plan.forward(arguments, stream);
    return {o, lse};
}

// Of [T, H, D] tensors, contiguous whatever the operand is.
Tensor gradient_of(const Tensor& operand) {
    return torch::stable::new_empty(operand, {operand.size(0), operand.size(1), operand.size(2)});
}

// What a backward pass reads of the forward pass.
struct Passed {
    const Tensor &d_o, &q, &k, &v, &o, &lse;
};

Gradients backward(const Passed& passed, const Words& words) {
    const auto& [d_o, q, k, v, o, lse] = passed;
    const spion::Plan plan = plan_for(q, k, v, words);
    void* const stream = stream_of(q);
    Tensor d_q = gradient_of(q), d_k = gradient_of(k), d_v = gradient_of(v);
    ScoreGradients learnt(q, words.scores, q.size(1));
    const Tensor scratch = scratch_of(plan, q, words.batch(), spion::Pass::kBackward, stream);
    spion::BackwardArguments arguments{.q = view(q),
                                       .k = view(k),
                                       .v = view(v),
                                       .o = view(o),
                                       .d_o = view(d_o),
                                       .d_q = view(d_q),
                                       .d_k = view(d_k),
                                       .d_v = view(d_v)};
    arguments.lse = static_cast<const float*>(lse.const_data_ptr());
    learnt.fill(arguments);
    fill(arguments, words, q.size(1), scratch);
    plan.backward(arguments, stream);
    return {d_q, d_k, d_v, learnt.sinks, learnt.bias};
}

#define SPION_SEQUENCE_PARAMETERS                                                             \
    const Tensor &tables, const Tensor &cu_seqlens, const Tensor &spans, std::int64_t length, \
        std::int64_t block, double scale, Text softmax, double softcap, double dropout,       \
        std::int64_t patterns, const Maybe &state, const Maybe &slopes, const Maybe &sinks,   \
        const Maybe &bias, std::int64_t sequence_patterns, const Maybe &key_cu_seqlens,       \
        std::int64_t key_length, Text score, Text derivative
#define SPION_SEQUENCE_WORDS                                                                    \
    {                                                                                           \
        tables, cu_seqlens, spans, length, block, scale, softmax, softcap, dropout, patterns,   \
            {state, slopes, sinks, bias}, sequence_patterns, key_cu_seqlens, key_length, score, \
            derivative                                                                          \
    }

std::tuple<Tensor, Tensor> varlen_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                                            SPION_SEQUENCE_PARAMETERS) {
    return forward(q, k, v, SPION_SEQUENCE_WORDS);
}

Gradients varlen_attention_backward(const Tensor& d_o, const Tensor& q, const Tensor& k,
                                    const Tensor& v, const Tensor& o, const Tensor& lse,
                                    SPION_SEQUENCE_PARAMETERS) {
    return backward({d_o, q, k, v, o, lse}, SPION_SEQUENCE_WORDS);
}

}  // namespace

#define SPION_SCHEMA                                                                             \
    "Tensor tables, Tensor cu_seqlens, Tensor spans, int length, int block, float scale, str "   \
    "softmax, float softcap, float dropout, int patterns, Tensor? dropout_state, Tensor? "       \
    "alibi_slopes, Tensor? sinks, Tensor? relative_bias=None, int sequence_patterns=0, Tensor? " \
    "key_cu_seqlens=None, int key_length=0, str score='', str score_derivative=''"

STABLE_TORCH_LIBRARY_FRAGMENT(spion, library) {
    library.def("varlen_attention(Tensor q, Tensor k, Tensor v, " SPION_SCHEMA
                ") -> (Tensor o, Tensor lse)");
    library.def(
        "varlen_attention_backward(Tensor d_o, Tensor q, Tensor k, Tensor v, Tensor o, Tensor "
        "lse, " SPION_SCHEMA ") -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(spion, CPU, library) {
    library.impl("varlen_attention", TORCH_BOX(&varlen_attention));
    library.impl("varlen_attention_backward", TORCH_BOX(&varlen_attention_backward));
}

STABLE_TORCH_LIBRARY_IMPL(spion, CUDA, library) {
    library.impl("varlen_attention", TORCH_BOX(&varlen_attention));
    library.impl("varlen_attention_backward", TORCH_BOX(&varlen_attention_backward));
}
