// libspion_torch.so: the operators spion::attention and spion::attention_backward for LibTorch and
// AOTInductor without Python, over PyTorch's stable ABI, so that one file serves 2.10 and later. The
// schemas are those of python/spion/torch/_op.py; a process loads one of the two. Gradients are
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

// What a call is told beside its tensors.
struct Words {
    std::int64_t block;
    double scale;
    const std::string& softmax;
    bool causal, padded, spans;
};

// By shape, dtype and device, never by the pattern. Made, and compiled, at the first call.
spion::Plan plan_of(const Tensor& q, const Tensor& k, const Words& words) {
    using Key = std::tuple<int, spion::DType, std::int64_t, std::int64_t, std::int64_t,
                           std::int64_t, std::int64_t, double, std::string, bool, bool, bool>;
    static std::mutex mutex;
    static std::map<Key, spion::Plan>& plans = *new std::map<Key, spion::Plan>();
    STD_TORCH_CHECK(q.dim() == 4, "q has ", q.dim(), " dimensions: give [B, H, L, D]");
    STD_TORCH_CHECK(k.dim() == 4, "k has ", k.dim(), " dimensions: give [B, H, L, D]");
    STD_TORCH_CHECK(words.softmax == "masked" || words.softmax == "pruned_zero", "softmax is ",
                    words.softmax, ": give masked or pruned_zero");
    const Key key{q.is_cuda() ? q.get_device_index() : -1,
                  dtype_of(q),
                  q.size(1),
                  k.size(1),
                  q.size(2),
                  q.size(3),
                  words.block,
                  words.scale,
                  words.softmax,
                  words.causal,
                  words.padded,
                  words.spans};
    {
        const std::lock_guard lock(mutex);
        const auto found = plans.find(key);
        if (found != plans.end()) {
            return found->second;
        }
    }
    const spion::Plan made =
        context_of(q).plan({.heads = static_cast<int>(q.size(1)),
                            .head_dim = static_cast<int>(q.size(3)),
                            .length = q.size(2),
                            .block = static_cast<int>(words.block),
                            .dtype = dtype_of(q),
                            .scale = static_cast<float>(words.scale),
                            .softmax = words.softmax == "masked" ? spion::Softmax::kMasked
                                                                 : spion::Softmax::kPrunedZero,
                            .key_padding = words.padded,
                            .causal = words.causal,
                            .key_value_heads = static_cast<int>(k.size(1)),
                            .spans = words.spans});
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

const std::int32_t* data_of(const Maybe& lengths) {
    if (!lengths) {
        return nullptr;
    }
    STD_TORCH_CHECK(lengths->scalar_type() == ScalarType::Int && lengths->is_contiguous(),
                    "lengths must be contiguous int32");
    return static_cast<const std::int32_t*>(lengths->const_data_ptr());
}

// The two halves of [2, B, L, 2].
struct SpansOf {
    SpansOf(const Maybe& spans, const Tensor& q) {
        if (!spans) {
            return;
        }
        STD_TORCH_CHECK(spans->scalar_type() == ScalarType::Int && spans->is_contiguous() &&
                            spans->dim() == 4 && spans->size(0) == 2 &&
                            spans->size(1) == q.size(0) && spans->size(2) == q.size(2) &&
                            spans->size(3) == 2,
                        "spans must be contiguous int32 [2, B, L, 2]");
        queries = static_cast<const std::int32_t*>(spans->const_data_ptr());
        keys = queries + spans->numel() / 2;
    }
    const std::int32_t *queries = nullptr, *keys = nullptr;
};

std::size_t bytes_of(const Tensor& tables) {
    STD_TORCH_CHECK(tables.scalar_type() == ScalarType::Int && tables.is_contiguous(),
                    "tables must be contiguous int32");
    return static_cast<std::size_t>(tables.numel()) * sizeof(std::int32_t);
}

std::tuple<Tensor, Tensor> attention(const Tensor& q, const Tensor& k, const Tensor& v,
                                     const Tensor& tables, const Maybe& lengths, std::int64_t block,
                                     double scale, const std::string& softmax, bool causal,
                                     const Maybe& spans) {
    const spion::Plan plan =
        plan_of(q, k, {block, scale, softmax, causal, lengths.has_value(), spans.has_value()});
    const SpansOf mask(spans, q);
    void* const stream = stream_of(q);
    Tensor o = torch::stable::empty_like(q);
    Tensor lse = torch::stable::new_empty(q, {q.size(0), q.size(1), q.size(2)}, ScalarType::Float);
    const Tensor scratch = scratch_of(plan, q, spion::Pass::kForward, stream);
    plan.forward({.q = view(q),
                  .k = view(k),
                  .v = view(v),
                  .o = view(o),
                  .lse = static_cast<float*>(lse.mutable_data_ptr()),
                  .tables = tables.const_data_ptr(),
                  .table_bytes = bytes_of(tables),
                  .lengths = data_of(lengths),
                  .workspace = scratch.data_ptr(),
                  .workspace_bytes = static_cast<std::size_t>(scratch.numel()),
                  .query_spans = mask.queries,
                  .key_spans = mask.keys},
                 stream);
    return {o, lse};
}

std::tuple<Tensor, Tensor, Tensor> attention_backward(
    const Tensor& d_o, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& o,
    const Tensor& lse, const Tensor& tables, const Maybe& lengths, std::int64_t block, double scale,
    const std::string& softmax, bool causal, const Maybe& spans) {
    const spion::Plan plan =
        plan_of(q, k, {block, scale, softmax, causal, lengths.has_value(), spans.has_value()});
    const SpansOf mask(spans, q);
    void* const stream = stream_of(q);
    Tensor d_q = torch::stable::empty_like(q);
    Tensor d_k = torch::stable::empty_like(k);
    Tensor d_v = torch::stable::empty_like(v);
    const Tensor scratch = scratch_of(plan, q, spion::Pass::kBackward, stream);
    plan.backward({.q = view(q),
                   .k = view(k),
                   .v = view(v),
                   .o = view(o),
                   .d_o = view(d_o),
                   .d_q = view(d_q),
                   .d_k = view(d_k),
                   .d_v = view(d_v),
                   .lse = static_cast<const float*>(lse.const_data_ptr()),
                   .tables = tables.const_data_ptr(),
                   .table_bytes = bytes_of(tables),
                   .lengths = data_of(lengths),
                   .workspace = scratch.data_ptr(),
                   .workspace_bytes = static_cast<std::size_t>(scratch.numel()),
                   .query_spans = mask.queries,
                   .key_spans = mask.keys},
                  stream);
    return {d_q, d_k, d_v};
}

}  // namespace

STABLE_TORCH_LIBRARY(spion, library) {
    library.def(
        "attention(Tensor q, Tensor k, Tensor v, Tensor tables, Tensor? lengths, int block, "
        "float scale, str softmax, bool causal=False, Tensor? spans=None) -> (Tensor o, Tensor "
        "lse)");
    library.def(
        "attention_backward(Tensor d_o, Tensor q, Tensor k, Tensor v, Tensor o, Tensor lse, "
        "Tensor tables, Tensor? lengths, int block, float scale, str softmax, bool causal=False, "
        "Tensor? spans=None) -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(spion, CPU, library) {
    library.impl("attention", TORCH_BOX(&attention));
    library.impl("attention_backward", TORCH_BOX(&attention_backward));
}

STABLE_TORCH_LIBRARY_IMPL(spion, CUDA, library) {
    library.impl("attention", TORCH_BOX(&attention));
    library.impl("attention_backward", TORCH_BOX(&attention_backward));
}
