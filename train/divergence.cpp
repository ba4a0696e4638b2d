#include "train/divergence.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <vector>

#include "ir/error.h"
#include "kernels/train_arguments.h"

namespace spion {
namespace {

// Whether all values of a buffer of `type` on the device are finite: none has an exponent of ones.
bool all_finite(Device& device, const void* data, std::size_t count, DType type) {
    std::vector<char> bytes(count * static_cast<std::size_t>(storage_bytes(type)));
    device.copy_out(bytes.data(), data, bytes.size());
    if (storage_bytes(type) == 4) {
        const auto* values = reinterpret_cast<const std::uint32_t*>(bytes.data());
        return std::all_of(values, values + count,
                           [](std::uint32_t bits) { return (~bits & 0x7F800000U) != 0; });
    }
    const std::uint16_t exponent = type == DType::kFp16 ? 0x7C00 : 0x7F80;
    const auto* values = reinterpret_cast<const std::uint16_t*>(bytes.data());
    return std::all_of(values, values + count,
                       [exponent](std::uint16_t bits) { return (~bits & exponent) != 0; });
}

// The elements from the first of a [B, H, L, D] view to its last, whatever lies between (the other
// heads; of Q, also K and V).
std::size_t span_of(const SpionTensor& tensor, const ModelShape& shape, int batch) {
    return static_cast<std::size_t>((batch - 1) * tensor.batch_stride +
                                    (shape.heads - 1) * tensor.head_stride +
                                    (shape.length - 1) * tensor.row_stride + shape.head_dim);
}

// The layer whose forward pass left what is finite.
void find_in_forward(Divergence& found, Model& model, Device& device) {
    for (int layer = 0; layer < model.shape().layers; ++layer) {
        const SpionAttentionArguments arguments = model.attention_arguments(layer);
        for (const auto& [tensor, name] :
             {std::pair(&arguments.q, "q, k, v"), std::pair(&arguments.o, "o")}) {
            if (!all_finite(device, tensor->data, span_of(*tensor, model.shape(), arguments.batch),
                            model.dtype())) {
                found.layer = layer;
                found.tensor = name;
                return;
            }
        }
    }
}

// "layer12.qkv.weight": 12
std::optional<int> layer_of(std::string_view parameter) {
    constexpr std::string_view kLayer = "layer";
    int layer = 0;
    if (!parameter.starts_with(kLayer)) return std::nullopt;
    const char* const begin = parameter.data() + kLayer.size();
    const auto [end, error] = std::from_chars(begin, parameter.data() + parameter.size(), layer);
    return error == std::errc() ? std::optional(layer) : std::nullopt;
}

// The backward pass goes from the table's end to its begin.
void find_in_gradients(Divergence& found, Model& model, Device& device) {
    const auto& table = model.layout().table();
    for (auto parameter = table.rbegin(); parameter != table.rend(); ++parameter) {
        if (!all_finite(device, model.parameters().gradient(parameter->offset),
                        static_cast<std::size_t>(parameter->count()), DType::kFp32)) {
            found.layer = layer_of(parameter->name);
            found.tensor = parameter->name;
            return;
        }
    }
}

// Those that share the last work item of AdamW that counted some.
void find_in_items(Divergence& found, const StepRecord& record, const Model& model) {
    const std::int64_t begin = std::int64_t{record.items.back()} * kSpionAdamValuesPerItem;
    for (const ParameterInfo& parameter : model.layout().table()) {
        if (parameter.offset < begin + kSpionAdamValuesPerItem &&
            parameter.offset + parameter.count() > begin) {
            found.layer = layer_of(parameter.name);
            found.tensor += (found.tensor.empty() ? "" : " or ") + parameter.name;
        }
    }
}

std::int64_t values_in(const ParameterLayout& layout) {
    std::int64_t count = 0;
    for (const ParameterInfo& parameter : layout.table()) count += parameter.count();
    return count;
}

}  // namespace

std::string Divergence::sentence() const {
    const std::string layer_text = layer ? fmt::format("layer {}", *layer) : "";
    const std::string place = tensor.empty()       ? layer_text
                              : layer_text.empty() ? tensor
                                                   : fmt::format("{} ({})", layer_text, tensor);
    return fmt::format("training has diverged{}{} at step {}: {}; lower the learning rate (--lr)",
                       place.empty() ? "" : " in ", place, step, reason);
}

bool has_diverged(const StepRecord& record) {
    return (record.not_finite > 0 && !record.left_out()) || !std::isfinite(record.loss);
}

Divergence find_divergence(const StepRecord& record, bool latest, Model& model, Device& device) {
    Divergence found{
        .step = record.step, .layer = {}, .tensor = "", .reason = "", .ended_training = false};
    const bool loss = !std::isfinite(record.loss);
    if (loss) found.reason = fmt::format("the loss is {}", record.loss);
    if (record.not_finite > 0) {
        found.reason +=
            fmt::format("{}{} of {} gradient values are not finite", loss ? " and " : "",
                        record.not_finite, values_in(model.layout()));
    }
    if (latest) find_in_forward(found, model, device);
    if (found.tensor.empty() && record.not_finite > 0) {
        if (latest) {
            find_in_gradients(found, model, device);
        } else {
            find_in_items(found, record, model);
        }
    }
    return found;
}

std::optional<Divergence> find_divergence(std::int64_t step, int layer,
                                          std::span<const double> pooled,
                                          std::span<const float> scores) {
    const auto finite = [](double value) { return std::isfinite(value); };
    if (std::all_of(pooled.begin(), pooled.end(), finite)) return std::nullopt;
    const bool only_sums = !scores.empty() && std::all_of(scores.begin(), scores.end(), finite);
    return Divergence{.step = step,
                      .layer = layer,
                      .tensor = "",
                      .reason = only_sums ? "its attention scores are finite, but too large to be "
                                            "summed in fp32"
                                          : "its attention scores are not finite",
                      .ended_training = true};
}

}  // namespace spion
