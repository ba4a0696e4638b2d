// What several processes that train together tell each other. Each of them makes every decision that
// the others depend on from the same numbers, at the same step.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "ir/error.h"
#include "ir/sha256.h"
#include "train/training.h"

namespace spion {
namespace {

constexpr double kAgreementMs = 200;  // wanted between two
constexpr int kMostSteps = 32;        // that a StepRunner keeps

enum Word { kSignal, kOutOfTime, kCheckpoint, kTiersWanting, kStepMs, kWords };
enum Value { kLoss, kAccuracy, kValues };  // of each step

std::string bytes_of(const std::vector<double>& values) {
    return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(double)};
}

std::vector<double> doubles_of(const std::string& bytes, std::size_t count) {
    if (bytes.size() != count * sizeof(double)) {
        throw InternalError("a process has told {} bytes, not {} numbers", bytes.size(), count);
    }
    std::vector<double> values(count);
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
}

}  // namespace

bool Training::interrupting() const {
    return alone() ? interrupt_.requested() : agreed_.signal != 0;
}

bool Training::has_no_time() const {
    return alone() ? out_of_time() : agreed_.out_of_time;
}

bool Training::checkpoint_is_due() const {
    return settings_.checkpoint_minutes > 0 &&
           minutes_since(last_checkpoint_) >= settings_.checkpoint_minutes;
}

bool Training::must_collect() const {
    return alone() ? runner_.due() : runner_.full() || runner_.pending() >= agreed_.steps;
}

// All must have the same settings and data, or their gradients are of different models.
void Training::require_same_run() {
    TrainSettings settings = settings_;
    settings.data.clear();  // a path may differ
    settings.device = DeviceChoice::kAuto;
    const auto all = ranks_.gather(digest_of(fmt::format(
        "{}{} {} {} {} {}", to_toml(settings), runner_.steps_done(), data_.train->samples(),
        data_.validation->samples(), data_.test->samples(), data_.classes)));
    for (std::size_t other = 1; other < all.size(); ++other) {
        if (all[other] != all[0]) {
            throw UserError(
                "process {} of {} has other settings, other data or another checkpoint than "
                "process 0: start all with the same command and the same files",
                other, all.size());
        }
    }
}

// The records become means over the processes, in the order of these.
void Training::agree(std::vector<StepRecord>& steps) {
    if (alone() || steps.empty()) return;  // as many in all of them
    std::vector<double> mine(kWords);
    mine[kSignal] = interrupt_.requested() ? interrupting_signal() : 0;
    mine[kOutOfTime] = out_of_time() ? 1 : 0;
    mine[kCheckpoint] = checkpoint_is_due() ? 1 : 0;
    mine[kTiersWanting] = ranks_.rank().local == 0 && tiers_ != nullptr ? 1 : 0;
    mine[kStepMs] = milliseconds_since(last_agreement_) / static_cast<double>(steps.size());
    for (const StepRecord& step : steps) {
        mine.push_back(step.loss);
        mine.push_back(step.accuracy);
    }
    std::vector<double> most(kWords, 0.0), sums(steps.size() * kValues, 0.0);
    for (const std::string& other : ranks_.gather(bytes_of(mine))) {
        const std::vector<double> its = doubles_of(other, mine.size());
        for (std::size_t i = 0; i < kWords; ++i) most[i] = std::max(most[i], its[i]);
        for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += its[kWords + i];
    }
    for (std::size_t i = 0; i < steps.size(); ++i) {
        steps[i].loss = sums[i * kValues + kLoss] / ranks_.rank().count;
        steps[i].accuracy = sums[i * kValues + kAccuracy] / ranks_.rank().count;
    }
    agreed_ = {.signal = static_cast<int>(most[kSignal]),
               .out_of_time = most[kOutOfTime] > 0,
               .checkpoint = most[kCheckpoint] > 0,
               .tiers = most[kTiersWanting] == 0,
               .steps = static_cast<int>(std::clamp(kAgreementMs / std::max(most[kStepMs], 1e-3),
                                                    1.0, double{kMostSteps}))};
    last_agreement_ = Clock::now();
    start_tiers();
}

// The first process of each machine compiles them, the others find them in the cache when it is done.
void Training::start_tiers() {
    if (!tiers_wanted_ || (ranks_.rank().local != 0 && !agreed_.tiers)) return;
    tiers_wanted_ = false;
    tiers_ = std::make_unique<BackgroundTiers>(attention_, device_, cache_);
}

// Of the batches of all processes, which are equally large.
void Training::average(std::vector<double>& map) {
    if (alone()) return;
    const double count = ranks_.rank().count;
    map = ranks_.sum(map);
    for (double& value : map) value /= count;
}

void Training::average(ScoreMaps::Map& map) {
    if (alone()) return;
    average(map.pooled);
    std::vector<double> scores(map.scores.begin(), map.scores.end());
    average(scores);
    std::transform(scores.begin(), scores.end(), map.scores.begin(),
                   [](double mean) { return static_cast<float>(mean); });
}

void Training::compare(std::span<const HeadPatterns> layers) {
    if (alone()) return;
    for (std::size_t layer = 0; layer < layers.size(); ++layer) {
        const auto digests = ranks_.gather(layers[layer].digest());
        for (std::size_t other = 1; other < digests.size(); ++other) {
            if (digests[other] == digests[0]) continue;
            throw DeviceError(
                "process {} of {} has another pattern in layer {} than process 0 (digests {} and "
                "{}): run the same build of spion on machines of one kind, with the same file for "
                "--pattern",
                other, digests.size(), layer, digests[other], digests[0]);
        }
    }
}

// Each process takes a stretch of the samples.
Evaluation Training::evaluate_split(const std::shared_ptr<const Samples>& split) {
    if (alone()) return evaluate(model_, device_, *split, settings_.batch);
    const std::int64_t samples = split->samples(), count = ranks_.rank().count;
    std::vector<std::int64_t> own;
    for (std::int64_t i = samples * ranks_.rank().index / count;
         i < samples * (ranks_.rank().index + 1) / count; ++i) {
        own.push_back(i);
    }
    Evaluation part;
    const auto size = static_cast<double>(own.size());
    if (!own.empty()) {
        part = evaluate(model_, device_, ChosenSamples(split, std::move(own)), settings_.batch);
    }
    const std::vector<double> sums =
        ranks_.sum(std::vector<double>{part.loss * size, part.accuracy * size});
    return {.loss = sums[0] / static_cast<double>(samples),
            .accuracy = sums[1] / static_cast<double>(samples)};
}

}  // namespace spion
