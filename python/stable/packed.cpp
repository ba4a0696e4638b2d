// spion::packed_attention and its _backward: heads of q, k and v side by side, [B, L, H + 2 Hkv, D], as
// python/spion/torch/_packed.py has them.
#include <cstdint>
#include <string>
#include <tuple>

#include "python/stable/batched.h"

namespace {

using namespace spion_torch;

// `count` heads of [B, L, heads, D] from the one numbered `first` on, as [B, count, L, D].
spion_tensor heads_of(const Tensor& tensor, std::int64_t first, std::int64_t count) {
    spion_tensor seen = view(tensor);
    const std::int64_t shape[] = {seen.shape[0], count, seen.shape[1], seen.shape[3]};
    const std::int64_t strides[] = {seen.strides[0], seen.strides[2], seen.strides[1],
                                    seen.strides[3]};
    seen.data = static_cast<char*>(seen.data) +
                first * seen.strides[2] * static_cast<std::int64_t>(tensor.element_size());
    for (int i = 0; i < 4; ++i) {
        seen.shape[i] = shape[i];
        seen.strides[i] = strides[i];
    }
    return seen;
}

Operands operands_of(const Tensor& qkv, std::int64_t heads) {
    const std::int64_t shared = (qkv.size(2) - heads) / 2;
    return {heads_of(qkv, 0, heads), heads_of(qkv, heads, shared),
            heads_of(qkv, heads + shared, shared)};
}

void check(const Tensor& qkv, std::int64_t heads) {
    const std::int64_t beside = qkv.dim() == 4 ? qkv.size(2) - heads : 0;
    STD_TORCH_CHECK(heads > 0 && beside > 0 && beside % 2 == 0, "qkv has ", qkv.dim(),
                    " dimensions and ", heads,
                    " heads of q: give [B, L, H + 2 Hkv, D], the heads of q, k and v side by side");
}

std::tuple<Tensor, Tensor> forward(const Tensor& qkv, std::int64_t heads, const Words& words,
                                   const Changes* changes) {
    check(qkv, heads);
    Tensor o = torch::stable::new_empty(qkv, {qkv.size(0), qkv.size(1), heads, qkv.size(3)});
    Tensor lse = run_forward(qkv, operands_of(qkv, heads), heads_of(o, 0, heads), words, changes);
    return {o, lse};
}

// What a backward pass reads of the forward pass; d_o and o: [B, L, H, D].
struct Seen {
    const Tensor &d_o, &qkv, &o, &lse;
};

Tensor backward(const Seen& seen, std::int64_t heads, const Words& words, const Changes* changes) {
    const Tensor& qkv = seen.qkv;
    check(qkv, heads);
    Tensor d_qkv =
        torch::stable::new_empty(qkv, {qkv.size(0), qkv.size(1), qkv.size(2), qkv.size(3)});
    run_backward(qkv, operands_of(qkv, heads),
                 {heads_of(seen.d_o, 0, heads), heads_of(seen.o, 0, heads), seen.lse},
                 operands_of(d_qkv, heads), words, changes, nullptr);
    return d_qkv;
}

// Without an expression of scores plans are those of spion::attention.
const Changes* given(const Changes& changes) {
    const bool some = !changes.score.empty() || !changes.score_derivative.empty();
    return some ? &changes : nullptr;
}

std::tuple<Tensor, Tensor> packed_attention(const Tensor& qkv, std::int64_t heads,
                                            const Tensor& tables, const Maybe& lengths,
                                            std::int64_t block, double scale, Text softmax,
                                            bool causal, const Maybe& spans, Text score,
                                            Text derivative) {
    const Changes changes{.score = score, .score_derivative = derivative};
    return forward(qkv, heads, {tables, lengths, block, scale, softmax, causal, spans},
                   given(changes));
}

Tensor packed_attention_backward(const Tensor& d_o, const Tensor& qkv, const Tensor& o,
                                 const Tensor& lse, std::int64_t heads, const Tensor& tables,
                                 const Maybe& lengths, std::int64_t block, double scale,
                                 Text softmax, bool causal, const Maybe& spans, Text score,
                                 Text derivative) {
    const Changes changes{.score = score, .score_derivative = derivative};
    return backward({d_o, qkv, o, lse}, heads,
                    {tables, lengths, block, scale, softmax, causal, spans}, given(changes));
}

}  // namespace

#define SPION_SCHEMA                                                                        \
    "int heads, Tensor tables, Tensor? lengths, int block, float scale, str softmax, bool " \
    "causal, Tensor? spans, str score='', str score_derivative=''"

STABLE_TORCH_LIBRARY_FRAGMENT(spion, library) {
    library.def("packed_attention(Tensor qkv, " SPION_SCHEMA ") -> (Tensor o, Tensor lse)");
    library.def(
        "packed_attention_backward(Tensor d_o, Tensor qkv, Tensor o, Tensor lse, " SPION_SCHEMA
        ") -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(spion, CPU, library) {
    library.impl("packed_attention", TORCH_BOX(&packed_attention));
    library.impl("packed_attention_backward", TORCH_BOX(&packed_attention_backward));
}

STABLE_TORCH_LIBRARY_IMPL(spion, CUDA, library) {
    library.impl("packed_attention", TORCH_BOX(&packed_attention));
    library.impl("packed_attention_backward", TORCH_BOX(&packed_attention_backward));
}
