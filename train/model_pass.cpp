// A batch, and the numbers of the pass over it, on their way to the device.
#include <algorithm>
#include <cmath>
#include <span>

#include "ir/error.h"
#include "train/model.h"

namespace spion {
namespace {

std::size_t aligned(std::size_t bytes) {
    return (bytes + 255) / 256 * 256;
}

}  // namespace

SpionPassState pass_state(std::uint32_t pass, std::int64_t step, double learning_rate,
                          const OptimiserSettings& optimiser) {
    // A step that is left out counts all the same, in the schedule and here.
    const auto t = static_cast<double>(step + 1);
    SpionPassState state;
    state.pass = pass;
    state.learning_rate = static_cast<float>(learning_rate);
    state.bias1 = static_cast<float>(1.0 - std::pow(optimiser.beta1, t));
    state.bias2 = static_cast<float>(1.0 - std::pow(optimiser.beta2, t));
    return state;
}

void Model::make_room_for_batches() {
    const auto batch = static_cast<std::size_t>(settings_.batch);
    const auto length = static_cast<std::size_t>(settings_.shape.length);
    const auto layers = static_cast<std::size_t>(settings_.shape.layers);
    const auto sequences = batch * static_cast<std::size_t>(settings_.shape.towers);
    labels_at_ = aligned(sequences * sizeof(std::int32_t));
    pass_at_ = labels_at_ + aligned(batch * sizeof(std::int32_t));
    attention_at_ = pass_at_ + aligned(sizeof(SpionPassState));
    tokens_at_ = attention_at_ + aligned(layers * sizeof(SpionDropoutState));
    for (Buffer& one : batches_) {
        one = Buffer(*device_, tokens_at_ + sequences * length * sizeof(std::uint16_t));
    }
    staged_.resize(batches_[0].bytes());
}

template <typename T>
void Model::stage(std::size_t at, std::span<const T> values) {
    const auto bytes = std::as_bytes(values);
    std::copy(bytes.begin(), bytes.end(), staged_.begin() + static_cast<std::ptrdiff_t>(at));
}

// Steps and layers are numbered through, so that none draws what another has drawn; the key is not
// that of the other dropouts, whose counters may be the same.
void Model::stage_pass(const SpionPassState& pass, bool drops) {
    constexpr std::uint64_t kOfAttention = 0x9E3779B97F4A7C15;
    std::vector<SpionDropoutState> states;
    const auto layers = static_cast<std::uint32_t>(settings_.shape.layers);
    for (std::uint32_t layer = 0; layer < layers; ++layer) {
        states.push_back({.seed = settings_.seed ^ kOfAttention,
                          .offset = pass.pass * layers + layer,
                          .enabled = drops ? 1 : 0});
    }
    stage<SpionPassState>(pass_at_, {&pass, 1});
    stage<SpionDropoutState>(attention_at_, states);
}

void Model::begin_pass(const SpionPassState& pass, bool drops) {
    stage_pass(pass, drops);
    device_->copy_in(batches_[batch_].as<std::byte>() + pass_at_, staged_.data() + pass_at_,
                     tokens_at_ - pass_at_);
}

void Model::upload(const Batch& batch, const SpionPassState& pass) {
    if (batch.size < 1 || batch.size > settings_.batch || batch.length != settings_.shape.length ||
        batch.towers != settings_.shape.towers) {
        throw InternalError("a batch of [{}, {}, {}] for a model of [{}, {}, {}]", batch.towers,
                            batch.size, batch.length, settings_.shape.towers, settings_.batch,
                            settings_.shape.length);
    }
    samples_ = batch.size;
    stage<std::int32_t>(0, batch.lengths);
    stage<std::int32_t>(labels_at_, batch.labels);
    stage_pass(pass, true);
    stage<std::uint16_t>(tokens_at_, batch.tokens);
    batch_ = 1 - batch_;
    device_->copy_in_ahead(batches_[batch_].data(), staged_.data(),
                           tokens_at_ + batch.tokens.size() * sizeof(std::uint16_t));
}

StepContext Model::context(bool drops) const {
    if (attention_.empty()) throw InternalError("the model has no attention yet");
    if (samples_ == 0) throw InternalError("the model has no batch yet");
    auto* const uploaded = batches_[batch_].as<std::byte>();
    const auto* now = reinterpret_cast<const SpionPassState*>(uploaded + pass_at_);
    const bool of_attention = attention_.front()->attention().dropout > 0.0F;
    return {.device = *device_,
            .kernels = kernels_,
            .shape = settings_.shape,
            .layout = layout_,
            .parameters = parameters_,
            .activations = activations_,
            .layer = layer_ ? &*layer_ : nullptr,
            .out = out_ ? &*out_ : nullptr,
            .qkv = qkv_ ? &*qkv_ : nullptr,
            .feed_forward = feed_forward_ ? &*feed_forward_ : nullptr,
            .feed_forward1 = feed_forward1_ ? &*feed_forward1_ : nullptr,
            .dtype = dtype_,
            .batch = samples_ * settings_.shape.towers,
            .tokens = reinterpret_cast<const std::uint16_t*>(uploaded + tokens_at_),
            .lengths = reinterpret_cast<const int*>(uploaded),
            .labels = reinterpret_cast<const int*>(uploaded + labels_at_),
            .now = now,
            .dropout = {.seed = settings_.seed,
                        .step = 0,
                        .stream = 0,
                        .enabled = drops && settings_.dropout > 0 ? 1 : 0,
                        .now = now},
            .attention_dropout =
                of_attention ? reinterpret_cast<SpionDropoutState*>(uploaded + attention_at_)
                             : nullptr};
}

}  // namespace spion
