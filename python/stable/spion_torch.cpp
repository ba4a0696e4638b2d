// libspion_torch.so: the operators spion::attention, spion::general_attention and their _backward for
// LibTorch and AOTInductor without Python, over PyTorch's stable ABI, so that one file serves 2.10 and
// later. The schemas are those of python/spion/torch/; a process loads one of the two. Gradients are
// the caller's: examples/07_libtorch.cpp shows a torch::autograd::Function.
#include <dlfcn.h>
#include <spion/spion.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Maybe = std::optional<Tensor>;

spion::DType dtype_of(const Tensor& tensor) {
    switch (tensor.scalar_type()) {
        case ScalarType::BFloat16:
            return spion::DType::kBf16;
        case ScalarType::Half:
            return spion::DType::kFp16;
        case ScalarType::Float:
            return spion::DType::kFp32;
        default:
            STD_TORCH_CHECK(false,
                            "attention computes in float32, bfloat16 and float16: convert "
                            "the tensors");
    }
}

// A [B, H, L, D] tensor; the library checks shape and strides.
spion_tensor view(const Tensor& tensor) {
    STD_TORCH_CHECK(tensor.dim() == 4, "a tensor has ", tensor.dim(),
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

// The current stream of PyTorch. The function lies in libtorch_cuda, which a CPU build has not.
void* stream_of(const Tensor& tensor) {
    if (!tensor.is_cuda()) {
        return nullptr;
    }
    using Function = std::int32_t (*)(std::int32_t, void**);
    static const auto current =
        reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, "aoti_torch_get_current_cuda_stream"));
    void* stream = nullptr;
    STD_TORCH_CHECK(current != nullptr && current(tensor.get_device_index(), &stream) == 0,
                    "PyTorch's current stream cannot be asked for: load libtorch_cuda first");
    return stream;
}

const spion::Context& context_of(const Tensor& tensor) {
    static std::mutex mutex;
    static std::map<int, spion::Context>& opened = *new std::map<int, spion::Context>();
    const int ordinal = tensor.is_cuda() ? tensor.get_device_index() : -1;
    const std::lock_guard lock(mutex);
    const auto found = opened.find(ordinal);
    if (found != opened.end()) {
        return found->second;
    }
    return opened
        .emplace(ordinal, ordinal < 0 ? spion::Context::host() : spion::Context::cuda(ordinal))
        .first->second;
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

// What a call of spion::general_attention is told beside that.
struct Changes {
    double softcap = 0, dropout = 0;
    std::int64_t patterns = 1;
    Maybe state = {}, slopes = {}, sinks = {}, bias = {};
};

// R of a bias by relative position; 0 without one.
int reach_of(const Maybe& bias) {
    if (!bias) {
        return 0;
    }
    STD_TORCH_CHECK(bias->dim() == 2 && bias->size(1) >= 3 && bias->size(1) % 2 == 1,
                    "relative_bias must be [H, 2R + 1], a bias a head and distance from -R to R");
    return static_cast<int>(bias->size(1) / 2);
}

spion::Attention attention_of(const Tensor& q, const Tensor& k, const Tensor& v, const Words& words,
                              const Changes* changes) {
    STD_TORCH_CHECK(q.dim() == 4, "q has ", q.dim(), " dimensions: give [B, H, L, D]");
    STD_TORCH_CHECK(k.dim() == 4, "k has ", k.dim(), " dimensions: give [B, H, L, D]");
    STD_TORCH_CHECK(v.dim() == 4, "v has ", v.dim(), " dimensions: give [B, H, L, D]");
    const std::optional<spion::Softmax> softmax = spion::softmax_named(words.softmax);
    STD_TORCH_CHECK(softmax.has_value(), "softmax is ", words.softmax, ": give ",
                    spion::kSoftmaxChoices);
    spion::Attention attention{.heads = static_cast<int>(q.size(1)),
                               .head_dim = static_cast<int>(q.size(3)),
                               .length = q.size(2),
                               .block = static_cast<int>(words.block),
                               .dtype = dtype_of(q),
                               .scale = static_cast<float>(words.scale),
                               .softmax = *softmax,
                               .key_padding = words.lengths.has_value(),
                               .causal = words.causal,
                               .key_value_heads = static_cast<int>(k.size(1)),
                               .spans = words.spans.has_value()};
    if (changes != nullptr) {
        attention.dropout = static_cast<float>(changes->dropout);
        attention.key_length = k.size(2);
        attention.softcap = static_cast<float>(changes->softcap);
        attention.alibi = changes->slopes.has_value();
        attention.sinks = changes->sinks.has_value();
        attention.patterns = static_cast<int>(changes->patterns);
        attention.value_dim = v.size(3) == q.size(3) ? 0 : static_cast<int>(v.size(3));
        attention.relative_bias = reach_of(changes->bias);
    }
    return attention;
}

// By shape, dtype and device, never by the pattern. Made, and compiled, at the first call.
spion::Plan plan_of(const Tensor& q, const spion::Attention& a) {
    using Key =
        std::tuple<int, spion::DType, int, int, std::int64_t, std::int64_t, int, int, float,
                   spion::Softmax, bool, bool, bool, float, float, int, bool, bool, int, int>;
    static std::mutex mutex;
    static std::map<Key, spion::Plan>& plans = *new std::map<Key, spion::Plan>();
    const Key key{q.is_cuda() ? q.get_device_index() : -1,
                  a.dtype,
                  a.heads,
                  a.key_value_heads,
                  a.length,
                  a.key_length,
                  a.head_dim,
                  a.block,
                  a.scale,
                  a.softmax,
                  a.key_padding,
                  a.causal,
                  a.spans,
                  a.dropout,
                  a.softcap,
                  a.patterns,
                  a.alibi,
                  a.sinks,
                  a.value_dim,
                  a.relative_bias};
    {
        const std::lock_guard lock(mutex);
        const auto found = plans.find(key);
        if (found != plans.end()) {
            return found->second;
        }
    }
    const spion::Plan made = context_of(q).plan(a);
    const std::lock_guard lock(mutex);
    return plans.emplace(key, made).first->second;
}

Tensor scratch_of(const spion::Plan& plan, const Tensor& like, spion::Pass pass, void* stream) {
    const auto bytes = static_cast<std::int64_t>(plan.workspace(like.size(0), pass).bytes);
    Tensor memory = torch::stable::new_empty(like, {bytes}, ScalarType::Byte);
    plan.prepare_workspace(like.size(0), pass, memory.mutable_data_ptr(),
                           static_cast<std::size_t>(bytes), stream);
    return memory;
}

// Of a contiguous vector of `count` elements; null of none.
template <typename T>
T* vector_of(const Maybe& given, const char* name, ScalarType type, const char* type_name,
             std::int64_t count) {
    if (!given) {
        return nullptr;
    }
    STD_TORCH_CHECK(given->scalar_type() == type && given->is_contiguous() && given->dim() == 1 &&
                        given->size(0) == count,
                    name, " must be contiguous ", type_name, " [", count, "]");
    return static_cast<T*>(given->data_ptr());
}

// Of [H, 2R + 1], whose width has made the plan.
const float* biases_of(const Maybe& given, std::int64_t heads) {
    if (!given) {
        return nullptr;
    }
    STD_TORCH_CHECK(given->scalar_type() == ScalarType::Float && given->is_contiguous() &&
                        given->size(0) == heads,
                    "relative_bias must be contiguous float32 [", heads, ", 2R + 1]");
    return static_cast<const float*>(given->const_data_ptr());
}

// The two halves of [2, B, L, 2], or of a row of 2 * B * (L + Lk) numbers.
struct SpansOf {
    SpansOf(const Maybe& spans, const Tensor& q, const Tensor& k) {
        if (!spans) {
            return;
        }
        const std::int64_t of_queries = 2 * q.size(0) * q.size(2);
        if (q.size(2) == k.size(2)) {
            STD_TORCH_CHECK(spans->scalar_type() == ScalarType::Int && spans->is_contiguous() &&
                                spans->dim() == 4 && spans->size(0) == 2 &&
                                spans->size(1) == q.size(0) && spans->size(2) == q.size(2) &&
                                spans->size(3) == 2,
                            "spans must be contiguous int32 [2, B, L, 2]");
            queries = static_cast<const std::int32_t*>(spans->const_data_ptr());
        } else {
            queries =
                vector_of<const std::int32_t>(spans, "spans of Lk keys", ScalarType::Int, "int32",
                                              of_queries + 2 * q.size(0) * k.size(2));
        }
        keys = queries + of_queries;
    }
    const std::int32_t *queries = nullptr, *keys = nullptr;
};

std::size_t bytes_of(const Tensor& tables) {
    STD_TORCH_CHECK(tables.scalar_type() == ScalarType::Int && tables.is_contiguous(),
                    "tables must be contiguous int32");
    return static_cast<std::size_t>(tables.numel()) * sizeof(std::int32_t);
}

// The arguments of a pass that both have.
template <typename Arguments>
void fill(Arguments& arguments, const Tensor& q, const Tensor& k, const Words& words,
          const Changes* changes, const Tensor& scratch) {
    const SpansOf mask(words.spans, q, k);
    arguments.tables = words.tables.const_data_ptr();
    arguments.table_bytes = bytes_of(words.tables);
    arguments.lengths = vector_of<const std::int32_t>(words.lengths, "lengths", ScalarType::Int,
                                                      "int32", q.size(0));
    arguments.workspace = scratch.data_ptr();
    arguments.workspace_bytes = static_cast<std::size_t>(scratch.numel());
    arguments.query_spans = mask.queries;
    arguments.key_spans = mask.keys;
    if (changes != nullptr) {
        arguments.dropout = vector_of<const spion::DropoutState>(changes->state, "dropout_state",
                                                                 ScalarType::Long, "int64", 2);
        arguments.alibi_slopes = vector_of<const float>(changes->slopes, "alibi_slopes",
                                                        ScalarType::Float, "float32", q.size(1));
        arguments.sinks = vector_of<const float>(changes->sinks, "sinks", ScalarType::Float,
                                                 "float32", q.size(1));
        arguments.relative_bias = biases_of(changes->bias, q.size(1));
    }
}

std::tuple<Tensor, Tensor> forward(const Tensor& q, const Tensor& k, const Tensor& v,
                                   const Words& words, const Changes* changes) {
    const spion::Plan plan = plan_of(q, attention_of(q, k, v, words, changes));
    void* const stream = stream_of(q);
    Tensor o = v.size(3) == q.size(3)
                   ? torch::stable::empty_like(q)
                   : torch::stable::new_empty(q, {q.size(0), q.size(1), q.size(2), v.size(3)});
    Tensor lse = torch::stable::new_empty(q, {q.size(0), q.size(1), q.size(2)}, ScalarType::Float);
    const Tensor scratch = scratch_of(plan, q, spion::Pass::kForward, stream);
    spion::ForwardArguments arguments{.q = view(q), .k = view(k), .v = view(v), .o = view(o)};
    arguments.lse = static_cast<float*>(lse.mutable_data_ptr());
    fill(arguments, q, k, words, changes, scratch);
    plan.forward(arguments, stream);
    return {o, lse};
}

// What a backward pass reads of the forward pass.
struct Passed {
    const Tensor &d_o, &q, &k, &v, &o, &lse;
};

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

// d_q, d_k, d_v; then d_sinks [H] and d_relative_bias [H, 2R + 1], without them of no element.
Gradients backward(const Passed& passed, const Words& words, const Changes* changes) {
    const auto& [d_o, q, k, v, o, lse] = passed;
    const spion::Plan plan = plan_of(q, attention_of(q, k, v, words, changes));
    void* const stream = stream_of(q);
    Tensor d_q = torch::stable::empty_like(q);
    Tensor d_k = torch::stable::empty_like(k);
    Tensor d_v = torch::stable::empty_like(v);
    const bool sinks = changes != nullptr && changes->sinks.has_value();
    Tensor d_sinks = torch::stable::new_empty(q, {sinks ? q.size(1) : 0}, ScalarType::Float);
    const bool biased = changes != nullptr && changes->bias.has_value();
    Tensor d_bias = torch::stable::new_empty(
        q, {biased ? q.size(1) : 0, biased ? changes->bias->size(1) : 0}, ScalarType::Float);
    const Tensor scratch = scratch_of(plan, q, spion::Pass::kBackward, stream);
    spion::BackwardArguments arguments{.q = view(q),
                                       .k = view(k),
                                       .v = view(v),
                                       .o = view(o),
                                       .d_o = view(d_o),
                                       .d_q = view(d_q),
                                       .d_k = view(d_k),
                                       .d_v = view(d_v)};
    arguments.lse = static_cast<const float*>(lse.const_data_ptr());
    arguments.d_sinks = sinks ? static_cast<float*>(d_sinks.mutable_data_ptr()) : nullptr;
    arguments.d_relative_bias = biased ? static_cast<float*>(d_bias.mutable_data_ptr()) : nullptr;
    fill(arguments, q, k, words, changes, scratch);
    plan.backward(arguments, stream);
    return {d_q, d_k, d_v, d_sinks, d_bias};
}

using Text = const std::string&;

std::tuple<Tensor, Tensor> attention(const Tensor& q, const Tensor& k, const Tensor& v,
                                     const Tensor& tables, const Maybe& lengths, std::int64_t block,
                                     double scale, Text softmax, bool causal, const Maybe& spans) {
    return forward(q, k, v, {tables, lengths, block, scale, softmax, causal, spans}, nullptr);
}

std::tuple<Tensor, Tensor> general_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                                             const Tensor& tables, const Maybe& lengths,
                                             std::int64_t block, double scale, Text softmax,
                                             bool causal, const Maybe& spans, double softcap,
                                             double dropout, std::int64_t patterns,
                                             const Maybe& state, const Maybe& slopes,
                                             const Maybe& sinks, const Maybe& bias) {
    const Changes changes{softcap, dropout, patterns, state, slopes, sinks, bias};
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
                                     const Maybe& bias) {
    const Changes changes{softcap, dropout, patterns, state, slopes, sinks, bias};
    return backward({d_o, q, k, v, o, lse}, {tables, lengths, block, scale, softmax, causal, spans},
                    &changes);
}

}  // namespace

#define SPION_OPERANDS "Tensor q, Tensor k, Tensor v, "
#define SPION_PASSED "Tensor d_o, " SPION_OPERANDS "Tensor o, Tensor lse, "
#define SPION_WORDS "Tensor tables, Tensor? lengths, int block, float scale, str softmax, "
#define SPION_MASK "bool causal=False, Tensor? spans=None"
#define SPION_CHANGES                                                                  \
    "bool causal, Tensor? spans, float softcap, float dropout, int patterns, Tensor? " \
    "dropout_state, Tensor? alibi_slopes, Tensor? sinks, Tensor? relative_bias=None"

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
