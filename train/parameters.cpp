#include "train/parameters.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <utility>

#include "ir/error.h"
#include "train/random.h"
#include "train/sine_embedding.h"

namespace spion {
namespace {

constexpr std::int64_t kAlignment = 8;  // elements: 16 bytes of bf16, what a fast GEMM wants
constexpr std::uint64_t kInitialStream = 2000;  // dataset.cpp and the generator use others

// Nearest bf16, ties to even.
std::uint16_t to_bf16(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if (std::isnan(value)) return static_cast<std::uint16_t>((bits >> 16) | 0x40U);
    return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);
}

// Nearest fp16, ties to even; beyond its range infinity.
std::uint16_t to_fp16(float value) {
    constexpr int kMantissaBits = 10, kLeastExponent = -13;  // of frexp: subnormal below it
    constexpr std::uint16_t kInfinity = 0x7C00, kNotANumber = 0x7E00;
    const auto sign = static_cast<std::uint16_t>(std::signbit(value) ? 0x8000 : 0);
    const double magnitude = std::abs(double{value});
    if (std::isnan(value)) return sign | kNotANumber;
    if (magnitude == 0) return sign;
    if (std::isinf(value)) return sign | kInfinity;
    int exponent = 0;
    std::frexp(magnitude, &exponent);
    exponent = std::max(exponent, kLeastExponent);
    const double unit = std::ldexp(magnitude, kMantissaBits + 1 - exponent);
    const std::int64_t bits =
        ((exponent - kLeastExponent) * (std::int64_t{1} << kMantissaBits)) + std::llrint(unit);
    return static_cast<std::uint16_t>(sign | std::min<std::int64_t>(bits, kInfinity));
}

float initial_value(const ParameterInfo& parameter, double embedding_deviation, SplitMix& random) {
    switch (parameter.initial) {
        case Initial::kZero:
            return 0.0F;
        case Initial::kOne:
            return 1.0F;
        case Initial::kEmbedding:
            return static_cast<float>(embedding_deviation * random.normal());
        case Initial::kLinear:
            return static_cast<float>((2.0 * random.uniform() - 1.0) /
                                      std::sqrt(static_cast<double>(parameter.fan_in)));
    }
    throw InternalError("unknown initial value of {}", parameter.name);
}

}  // namespace

std::int64_t ParameterInfo::count() const {
    return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

ParameterLayout::ParameterLayout(const ModelShape& shape) {
    const std::int64_t c = shape.channels(), f = shape.feed_forward;
    token = add("token", {shape.vocabulary, c}, Initial::kEmbedding);
    position = add("position", {shape.length, c}, Initial::kEmbedding);
    for (int i = 0; i < shape.layers; ++i) {
        const std::string name = fmt::format("layer{}.", i);
        const std::string before =
            i == 0 ? std::string() : fmt::format("layer{}.feed_forward2.bias", i - 1);
        LayerOffsets layer;
        layer.norm1 = add_norm(name + "norm1", before, shape.channels(), f);
        layer.qkv_weight = add(name + "qkv.weight", {3 * c, c}, Initial::kLinear, c);
        layer.qkv_bias = add(name + "qkv.bias", {3 * c}, Initial::kLinear, c);
        layer.out_weight = add(name + "out.weight", {c, c}, Initial::kLinear, c);
        layer.norm2 = add_norm(name + "norm2", name + "out.bias", shape.channels(), c);
        layer.feed_forward1_weight =
            add(name + "feed_forward1.weight", {f, c}, Initial::kLinear, c);
        layer.feed_forward1_bias = add(name + "feed_forward1.bias", {f}, Initial::kLinear, c);
        layer.feed_forward2_weight =
            add(name + "feed_forward2.weight", {c, f}, Initial::kLinear, f);
        layers.push_back(layer);
    }
    final_norm = add_norm("final_norm", fmt::format("layer{}.feed_forward2.bias", shape.layers - 1),
                          shape.channels(), f);
    const std::int64_t features = shape.features();
    head1_weight = add("head1.weight", {f, features}, Initial::kLinear, features);
    head1_bias = add("head1.bias", {f}, Initial::kLinear, features);
    head2_weight = add("head2.weight", {shape.classes, f}, Initial::kLinear, f);
    head2_bias = add("head2.bias", {shape.classes}, Initial::kLinear, f);
}

std::int64_t ParameterLayout::add(std::string name, std::vector<std::int64_t> shape,
                                  Initial initial, std::int64_t fan_in) {
    ParameterInfo parameter{.name = std::move(name),
                            .offset = size_,
                            .shape = std::move(shape),
                            .initial = initial,
                            .fan_in = fan_in};
    size_ += (parameter.count() + kAlignment - 1) / kAlignment * kAlignment;
    table_.push_back(std::move(parameter));
    return table_.back().offset;
}

// An empty branch_bias: no branch enters before this norm. C is a multiple of kAlignment, so the
// vectors are adjacent.
NormOffsets ParameterLayout::add_norm(const std::string& name, const std::string& branch_bias,
                                      int channels, std::int64_t fan_in) {
    NormOffsets offsets;
    offsets.gamma = add(name + ".gamma", {channels}, Initial::kOne);
    offsets.beta = add(name + ".beta", {channels}, Initial::kZero);
    if (!branch_bias.empty()) {
        offsets.branch_bias = add(branch_bias, {channels}, Initial::kLinear, fan_in);
    }
    return offsets;
}

std::int64_t ParameterLayout::feed_forward2_bias(int layer) const {
    const auto next = static_cast<std::size_t>(layer) + 1;
    return next < layers.size() ? layers[next].norm1.branch_bias : final_norm.branch_bias;
}

const std::vector<std::int64_t>& ParameterLayout::shape_of(std::int64_t offset) const {
    return std::find_if(table_.begin(), table_.end(),
                        [&](const ParameterInfo& info) { return info.offset == offset; })
        ->shape;
}

std::vector<float> ParameterLayout::initial_values(std::uint64_t seed,
                                                   const EmbeddingStart& embedding) const {
    std::vector<float> values(static_cast<std::size_t>(size_), 0.0F);
    for (std::size_t p = 0; p < table_.size(); ++p) {
        SplitMix random(seed, kInitialStream, p);
        for (std::int64_t i = 0; i < table_[p].count(); ++i) {
            values[static_cast<std::size_t>(table_[p].offset + i)] =
                initial_value(table_[p], embedding.deviation, random);
        }
    }
    if (embedding.sine) place_sines(*this, embedding, values);
    return values;
}

ParameterState::ParameterState(Device& device, const std::vector<float>& values, DType dtype)
    : device_(&device), size_(static_cast<std::int64_t>(values.size())), dtype_(dtype) {
    const std::size_t bytes = values.size() * sizeof(float);
    values_ = Buffer(device, bytes);
    if (device.target().back_end == BackEnd::kCuda) {
        low_ = Buffer(device, values.size() * sizeof(std::uint16_t));
    }
    for (Buffer* buffer : {&gradients_, &m_, &v_}) {
        *buffer = Buffer(device, bytes);
        device.fill(buffer->data(), 0, bytes);
    }
    upload(values);
}

void ParameterState::upload(const std::vector<float>& values) {
    device_->copy_in(values_.data(), values.data(), values_.bytes());
    if (!low_) return;
    std::vector<std::uint16_t> low(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
        low[i] = dtype_ == DType::kFp16 ? to_fp16(values[i]) : to_bf16(values[i]);
    }
    device_->copy_in(low_.data(), low.data(), low_.bytes());
}

void ParameterState::upload_moments(const std::vector<float>& first,
                                    const std::vector<float>& second) {
    device_->copy_in(m_.data(), first.data(), m_.bytes());
    device_->copy_in(v_.data(), second.data(), v_.bytes());
}

const void* ParameterState::gemm_operand(std::int64_t offset) const {
    if (low_) return low_.as<std::uint16_t>() + offset;
    return values_.as<float>() + offset;
}

}  // namespace spion
