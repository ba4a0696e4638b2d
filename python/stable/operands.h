// What the operators of libspion_torch.so share: tensors as the library takes them, plans that are found
// by what tensors are, and what calls have beside them.
#pragma once

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
#include <string_view>
#include <tuple>

namespace spion_torch {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Maybe = std::optional<Tensor>;

inline spion::DType dtype_of(const Tensor& tensor) {
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

// The current stream of PyTorch. The function lies in libtorch_cuda, which a CPU build has not.
inline void* stream_of(const Tensor& tensor) {
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

inline const spion::Context& context_of(const Tensor& tensor) {
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

// R of a bias by relative position; 0 without one.
inline int reach_of(const Maybe& bias) {
    if (!bias) {
        return 0;
    }
    STD_TORCH_CHECK(bias->dim() == 2 && bias->size(1) >= 3 && bias->size(1) % 2 == 1,
                    "relative_bias must be [H, 2R + 1], a bias a head and distance from -R to R");
    return static_cast<int>(bias->size(1) / 2);
}

inline spion::Softmax softmax_of(const std::string& name) {
    const std::optional<spion::Softmax> softmax = spion::softmax_named(name);
    STD_TORCH_CHECK(softmax.has_value(), "softmax is ", name, ": give ", spion::kSoftmaxChoices);
    return *softmax;
}

// By shape, dtype and device, never by the pattern. Made, and compiled, at the first call.
inline spion::Plan plan_of(const Tensor& q, const spion::Attention& a) {
    using Key = std::tuple<int, spion::DType, int, int, std::int64_t, std::int64_t, int, int, float,
                           spion::Softmax, bool, bool, bool, float, float, int, bool, bool, int,
                           int, bool, bool, int, std::string, std::string>;
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
                  a.relative_bias,
                  a.varlen,
                  a.key_starts,
                  a.sequence_patterns,
                  a.score,
                  a.score_derivative};
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

inline Tensor scratch_of(const spion::Plan& plan, const Tensor& like, std::int64_t batch,
                         spion::Pass pass, void* stream) {
    const auto bytes = static_cast<std::int64_t>(plan.workspace(batch, pass).bytes);
    Tensor memory = torch::stable::new_empty(like, {bytes}, ScalarType::Byte);
    plan.prepare_workspace(batch, pass, memory.mutable_data_ptr(), static_cast<std::size_t>(bytes),
                           stream);
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
inline const float* biases_of(const Maybe& given, std::int64_t heads) {
    if (!given) {
        return nullptr;
    }
    STD_TORCH_CHECK(given->scalar_type() == ScalarType::Float && given->is_contiguous() &&
                        given->size(0) == heads,
                    "relative_bias must be contiguous float32 [", heads, ", 2R + 1]");
    return static_cast<const float*>(given->const_data_ptr());
}

inline std::size_t bytes_of(const Tensor& tables) {
    STD_TORCH_CHECK(tables.scalar_type() == ScalarType::Int && tables.is_contiguous(),
                    "tables must be contiguous int32");
    return static_cast<std::size_t>(tables.numel()) * sizeof(std::int32_t);
}

// What a call changes scores and probabilities by; each tensor may be missing.
struct Scores {
    Maybe state = {}, slopes = {}, sinks = {}, bias = {};
};

// Where both passes find these, of H heads.
template <typename Arguments>
void fill_scores(Arguments& arguments, const Scores& scores, std::int64_t heads) {
    arguments.dropout = vector_of<const spion::DropoutState>(scores.state, "dropout_state",
                                                             ScalarType::Long, "int64", 2);
    arguments.alibi_slopes =
        vector_of<const float>(scores.slopes, "alibi_slopes", ScalarType::Float, "float32", heads);
    arguments.sinks =
        vector_of<const float>(scores.sinks, "sinks", ScalarType::Float, "float32", heads);
    arguments.relative_bias = biases_of(scores.bias, heads);
}

// For d_sinks [H] and d_relative_bias [H, 2R + 1], of no element where there are none.
struct ScoreGradients {
    ScoreGradients(const Tensor& like, const Scores& scores, std::int64_t heads)
        : sinks(torch::stable::new_empty(like, {scores.sinks ? heads : 0}, ScalarType::Float)),
          bias(torch::stable::new_empty(
              like, {scores.bias ? heads : 0, scores.bias ? scores.bias->size(1) : 0},
              ScalarType::Float)),
          of(scores) {}
    void fill(spion::BackwardArguments& arguments) {
        arguments.d_sinks = of.sinks ? static_cast<float*>(sinks.mutable_data_ptr()) : nullptr;
        arguments.d_relative_bias =
            of.bias ? static_cast<float*>(bias.mutable_data_ptr()) : nullptr;
    }
    Tensor sinks, bias;
    const Scores& of;
};

// d_q, d_k, d_v, d_sinks and d_relative_bias.
using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;
using Text = const std::string&;

}  // namespace spion_torch
