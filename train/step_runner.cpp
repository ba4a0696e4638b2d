#include "train/step_runner.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <utility>

#include "ir/error.h"

namespace spion {
namespace {

// Seldom enough to cost a fast device nothing, often enough for a progress line.
constexpr std::chrono::milliseconds kCollectInterval{200};

template <typename T>
std::vector<T> read(Device& device, const Buffer& buffer, std::size_t count) {
    std::vector<T> values(count);
    device.copy_out(values.data(), buffer.data(), count * sizeof(T));
    return values;
}

}  // namespace

bool StepRecord::left_out() const {
    return not_finite > 0 && loss_scale > 1 && std::isfinite(loss);
}

StepRunner::StepRunner(Model& model, Device& device, BatchStream& batches,
                       const OptimiserSettings& optimiser, int batch, int accumulate,
                       std::int64_t steps_done, Communicator* ranks, bool graphs)
    : model_(&model),
      device_(&device),
      batches_(&batches),
      ranks_(ranks),
      optimiser_(optimiser),
      batch_(batch),
      accumulate_(accumulate),
      steps_done_(steps_done),
      losses_(device, sizeof(float) * kPending * static_cast<std::size_t>(samples())),
      correct_(device, sizeof(int) * kPending * static_cast<std::size_t>(samples())),
      not_finite_(device,
                  sizeof(int) * kPending * static_cast<std::size_t>(model.not_finite_items())),
      loss_scales_(device, sizeof(float) * kPending),
      graphs_(device, graphs && alone()) {}

StepResults StepRunner::results(int slot) const {
    return {.losses = losses_.as<float>() + slot * samples(),
            .correct = correct_.as<int>() + slot * samples(),
            .not_finite = not_finite_.as<int>() + slot * model_->not_finite_items(),
            .loss_scale = loss_scales_.as<float>() + slot};
}

// Adds up the gradients of the step's batches, and of those of the other processes.
void StepRunner::run(double learning_rate) {
    if (full()) throw InternalError("{} steps are pending, none was collected", kPending);
    const auto slot = static_cast<int>(pending_.size());
    std::optional<GradientSums> sums;
    if (!alone()) sums.emplace(*ranks_, model_->parameters().gradient(0));
    for (int part = 0; part < accumulate_; ++part) {
        const Batch batch = batches_->next();
        if (slot == 0 && part == 0) device_->mark(0);
        model_->upload(batch, state_of(slot, part, learning_rate));
        const bool last = part + 1 == accumulate_;
        const LaunchKind kind{.first = part == 0,
                              .last = last,
                              .buffer = model_->batch_buffer(),
                              .samples = batch.size};
        graphs_.run(kind, [&] { launch_pass(part, sums ? &*sums : nullptr); });
    }
    device_->mark(slot + 1);
    ++steps_done_;
    pending_.push_back({.step = steps_done_, .learning_rate = learning_rate, .items = {}});
    must_look_ = device_->target().back_end == BackEnd::kHost && !last_step_is_finite();
}

SpionPassState StepRunner::state_of(int slot, int part, double learning_rate) const {
    const std::int64_t processes = alone() ? 1 : ranks_->rank().count;
    const std::int64_t process = alone() ? 0 : ranks_->rank().index;
    // Dropout draws anew for every pass, of any process.
    const std::int64_t pass = (steps_done_ * accumulate_ + part) * processes + process;
    SpionPassState state =
        pass_state(static_cast<std::uint32_t>(pass), steps_done_, learning_rate, optimiser_);
    state.first_sample = slot * samples() + std::int64_t{part} * batch_;
    state.slot = slot;
    return state;
}

void StepRunner::launch_pass(int part, GradientSums* sums) {
    GradientsLaunched launched;
    if (sums != nullptr) {
        launched = [&](std::int64_t first, std::int64_t count) { sums->launched(first, count); };
    }
    model_->launch_gradients(part, accumulate_, results(0), launched);
    if (part + 1 < accumulate_) return;
    if (sums != nullptr) sums->finish();
    model_->launch_update(optimiser_, results(0));
}

// On the host: results lie in its memory, and the step is done.
bool StepRunner::last_step_is_finite() const {
    const StepResults step = results(static_cast<int>(pending_.size()) - 1);
    return std::all_of(step.losses, step.losses + samples(),
                       [](float loss) { return std::isfinite(loss); }) &&
           std::all_of(step.not_finite, step.not_finite + model_->not_finite_items(),
                       [](int count) { return count == 0; });
}

bool StepRunner::due() const {
    return full() || must_look_ ||
           (!pending_.empty() &&
            std::chrono::steady_clock::now() - last_collect_ >= kCollectInterval);
}

std::vector<StepRecord> StepRunner::collect() {
    const std::size_t steps = pending_.size(), batch = static_cast<std::size_t>(samples());
    const auto items = static_cast<std::size_t>(model_->not_finite_items());
    const auto losses = read<float>(*device_, losses_, steps * batch);
    const auto correct = read<int>(*device_, correct_, steps * batch);
    const auto not_finite = read<int>(*device_, not_finite_, steps * items);
    const auto scales = read<float>(*device_, loss_scales_, model_->scales_loss() ? steps : 0);
    for (std::size_t s = 0; s < steps; ++s) {
        const auto sum = [s](const auto& values, std::size_t count, auto zero) {
            const auto first = values.begin() + static_cast<std::ptrdiff_t>(s * count);
            return std::accumulate(first, first + static_cast<std::ptrdiff_t>(count), zero);
        };
        StepRecord& record = pending_[s];
        record.loss = sum(losses, batch, 0.0) / static_cast<double>(batch);
        record.accuracy =
            static_cast<double>(sum(correct, batch, std::int64_t{0})) / static_cast<double>(batch);
        if (!scales.empty()) record.loss_scale = scales[s];
        record.not_finite = sum(not_finite, items, std::int64_t{0});
        for (std::size_t item = 0; item < items; ++item) {
            if (not_finite[s * items + item] > 0) record.items.push_back(static_cast<int>(item));
        }
        record.step_ms =
            device_->milliseconds_between(static_cast<int>(s), static_cast<int>(s) + 1);
    }
    must_look_ = false;
    last_collect_ = std::chrono::steady_clock::now();
    return std::exchange(pending_, {});
}

Evaluation evaluate(Model& model, Device& device, const Samples& split, int batch) {
    const std::int64_t samples = split.samples();
    const Buffer losses(device, sizeof(float) * static_cast<std::size_t>(samples));
    const Buffer correct(device, sizeof(int) * static_cast<std::size_t>(samples));
    for (std::int64_t first = 0; first < samples; first += batch) {
        std::vector<std::int64_t> indices(
            static_cast<std::size_t>(std::min<std::int64_t>(batch, samples - first)));
        std::iota(indices.begin(), indices.end(), first);
        model.upload(make_batch(split, indices, model.shape().length, model.shape().class_token()));
        model.evaluate(
            {.losses = losses.as<float>() + first, .correct = correct.as<int>() + first});
    }
    const auto loss = read<float>(device, losses, static_cast<std::size_t>(samples));
    const auto right = read<int>(device, correct, static_cast<std::size_t>(samples));
    return {.loss = std::accumulate(loss.begin(), loss.end(), 0.0) / static_cast<double>(samples),
            .accuracy =
                static_cast<double>(std::accumulate(right.begin(), right.end(), std::int64_t{0})) /
                static_cast<double>(samples)};
}

}  // namespace spion
