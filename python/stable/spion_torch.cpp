// libspion_torch.so: the operators of spion.torch and their _backward for LibTorch and AOTInductor without
// Python, over PyTorch's stable ABI, so that one file serves 2.10 and later: here spion::attention and
// spion::general_attention, in sequences.cpp and packed.cpp the others. The schemas are those of
// python/spion/torch/; a process loads one of the two. Gradients are the caller's:
// examples/07_libtorch.cpp shows a torch::autograd::Function.
#include <cstdint>
#include <string>
#include <tuple>

#include "python/stable/batched.h"

namespace {

using namespace spion_torch;

Operands operands_of(const Tensor& q, const Tensor& k, const Tensor& v) {
    return {view(q, "q"), view(k, "k"), view(v, "v")};
}

std::tuple<Tensor, Tensor> forward(const Tensor& q, const Tensor& k, const Tensor& v,
                                   const Words& words, const Changes* changes) {
    const Operands operands = operands_of(q, k, v);
    Tensor o = v.size(3) == q.size(3)
                   ? torch::stable::empty_like(q)
                   : torch::stable::new_empty(q, {q.size(0), q.size(1), q.size(2), v.size(3)});
    Tensor lse = run_forward(q, operands, view(o), words, changes);
    return {o, lse};
}

// What a backward pass reads of the forward pass.
struct Seen {
    const Tensor &d_o, &q, &k, &v, &o, &lse;
};

// d_q, d_k, d_v; then d_sinks [H] and d_relative_bias [H, 2R + 1], without them of no element.
Gradients backward(const Seen& seen, const Words& words, const Changes* changes) {
    const auto& [d_o, q, k, v, o, lse] = seen;
    const Operands operands = operands_of(q, k, v);
    Tensor d_q = torch::stable::empty_like(q);
    Tensor d_k = torch::stable::empty_like(k);
    Tensor d_v = torch::stable::empty_like(v);
    const Scores none;
    ScoreGradients learnt(q, changes == nullptr ? none : changes->scores, q.size(1));
    run_backward(q, operands, {view(d_o, "d_o"), view(o, "o"), lse}, operands_of(d_q, d_k, d_v),
                 words, changes, &learnt);
    return {d_q, d_k, d_v, learnt.sinks, learnt.bias};
}

std::tuple<Tensor, Tensor> attention(const Tensor& q, const Tensor& k, const Tensor& v,
                                     const Tensor& tables, const Maybe& lengths, std::int64_t block,
                                     double scale, Text softmax, bool causal, const Maybe& spans) {
    return forward(q, k, v, {tables, lengths, block, scale, softmax, causal, spans}, nullptr);
}

std::tuple<Tensor, Tensor> general_attention(
    const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& tables, const Maybe& lengths,
    std::int64_t block, double scale, Text softmax, bool causal, const Maybe& spans, double softcap,
    double dropout, std::int64_t patterns, const Maybe& state, const Maybe& slopes,
    const Maybe& sinks, const Maybe& bias, Text score, Text derivative) {
    const Changes changes{softcap, dropout,   patterns, {state, slopes, sinks, bias},
                          score,   derivative};
    return forward(q, k, v, {tables, lengths, block, scale, softmax, causal, spans}, &changes);
}

std::tuple<Tensor, Tensor, Tensor> attention_backward(
    const Tensor& d_o, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& o,
    const Tensor& lse, const Tensor& tables, const Maybe& lengths, std::int64_t block, double scale,
    Text softmax, bool causal, const Maybe& spans) {
    const auto made = backward({d_o, q, k, v, o, lse},
                               {tables, lengths, block, scale, softmax, causal, spans}, nullptr);
    return {std::get<0>(made), std::get<1>(made), std::get<2>(made)};
}

Gradients general_attention_backward(const Tensor& d_o, const Tensor& q, const Tensor& k,
                                     const Tensor& v, const Tensor& o, const Tensor& lse,
                                     const Tensor& tables, const Maybe& lengths, std::int64_t block,
                                     double scale, Text softmax, bool causal, const Maybe& spans,
                                     double softcap, double dropout, std::int64_t patterns,
                                     const Maybe& state, const Maybe& slopes, const Maybe& sinks,
                                     const Maybe& bias, Text score, Text derivative) {
    const Changes changes{softcap, dropout,   patterns, {state, slopes, sinks, bias},
                          score,   derivative};
    return backward({d_o, q, k, v, o, lse}, {tables, lengths, block, scale, softmax, causal, spans},
                    &changes);
}

}  // namespace

#define SPION_OPERANDS "Tensor q, Tensor k, Tensor v, "
#define SPION_PASSED "Tensor d_o, " SPION_OPERANDS "Tensor o, Tensor lse, "
#define SPION_WORDS "Tensor tables, Tensor? lengths, int block, float scale, str softmax, "
#define SPION_MASK "bool causal=False, Tensor? spans=None"
#define SPION_CHANGES                                                                      \
    "bool causal, Tensor? spans, float softcap, float dropout, int patterns, Tensor? "     \
    "dropout_state, Tensor? alibi_slopes, Tensor? sinks, Tensor? relative_bias=None, str " \
    "score='', str score_derivative=''"

STABLE_TORCH_LIBRARY(spion, library) {
    library.def("attention(" SPION_OPERANDS SPION_WORDS SPION_MASK ") -> (Tensor o, Tensor lse)");
    library.def("attention_backward(" SPION_PASSED SPION_WORDS SPION_MASK
                ") -> (Tensor, Tensor, Tensor)");
    library.def("general_attention(" SPION_OPERANDS SPION_WORDS SPION_CHANGES
                ") -> (Tensor o, Tensor lse)");
    library.def("general_attention_backward(" SPION_PASSED SPION_WORDS SPION_CHANGES
                ") -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(spion, CPU, library) {
    library.impl("attention", TORCH_BOX(&attention));
    library.impl("attention_backward", TORCH_BOX(&attention_backward));
    library.impl("general_attention", TORCH_BOX(&general_attention));
    library.impl("general_attention_backward", TORCH_BOX(&general_attention_backward));
}

STABLE_TORCH_LIBRARY_IMPL(spion, CUDA, library) {
    library.impl("attention", TORCH_BOX(&attention));
    library.impl("attention_backward", TORCH_BOX(&attention_backward));
    library.impl("general_attention", TORCH_BOX(&general_attention));
    library.impl("general_attention_backward", TORCH_BOX(&general_attention_backward));
}
