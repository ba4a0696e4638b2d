#include "train/phases.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "compiler/discovery/transition.h"
#include "train/data/listops.h"
#include "train/interrupt.h"
#include "train/report.h"
#include "train/schedule.h"
#include "train/score_maps.h"

namespace spion {
namespace {

using AttentionLayers = std::vector<std::unique_ptr<CompiledAttention>>;

ModelSettings model_settings(const TrainSettings& s) {
    return {.shape = {.layers = s.layers,
                      .heads = s.heads,
                      .head_dim = s.head_dim,
                      .feed_forward = s.feed_forward,
                      .vocabulary = s.vocabulary,
                      .classes = kListOpsClasses,
                      .length = s.length},
            .batch = s.batch,
            .dropout = s.dropout,
            .seed = s.seed};
}

OptimiserSettings optimiser_settings(const TrainSettings& s) {
    return {.beta1 = s.beta1,
            .beta2 = s.beta2,
            .epsilon = s.epsilon,
            .weight_decay = s.weight_decay,
            .clip = s.clip};
}

// The kernels of the dense phase are those of the sparse one, so that its start compiles nothing;
// packing depends on the pattern, so tiles may be packed only where kernels are tuned for the
// pattern, and compiled anew.
CompileOptions options_of(const TrainSettings& s) {
    CompileOptions options;
    options.autotune = s.autotune;
    options.batch = s.batch;
    options.packed_rows = s.autotune ? std::nullopt : std::optional(1);
    options.density = s.dense ? PatternDensity::kFull : PatternDensity::kSparse;
    return options;
}

OneCycleSchedule schedule_over(const TrainSettings& s, std::int64_t steps) {
    return {s.learning_rate, steps, static_cast<double>(s.warmup) / static_cast<double>(s.steps)};
}

double milliseconds_since(std::chrono::steady_clock::time_point begin) {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin)
        .count();
}

class Training {
  public:
    Training(const TrainSettings& settings, const Dataset& data, Device& device, KernelCache& cache,
             RunFolder& folder, Progress& progress);

    bool goes_on() const {
        return runner_.steps_done() < settings_.steps && !interrupt_.requested() && !diverged();
    }
    bool turns_sparse() const { return turns_sparse_; }
    void step();
    void turn_sparse();
    TrainReport finish();

  private:
    // Training ends because its values are not finite.
    bool diverged() const { return report_.divergence && report_.divergence->ended_training; }
    void note(const Divergence& divergence);
    void collect();
    void decide_tiers();
    void evaluate_now();
    bool take_score_maps();
    void write_kernels(const AttentionLayers& layers);
    double seconds() const {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    }
    void record(std::string_view split, const Evaluation& evaluation);
    AttentionLayers compile_dense();
    AttentionTime time_launch(CompiledAttention& attention, int layer, const Buffer& lengths);
    void time_attention();

    const TrainSettings& settings_;
    const Dataset& data_;
    Device& device_;
    KernelCache& cache_;
    RunFolder& folder_;
    Progress& progress_;
    InterruptGuard interrupt_;
    MetricsFile metrics_;
    Model model_;
    BatchStream batches_;
    StepRunner runner_;
    AttentionLayers attention_;              // dense: one for all layers; sparse: one a layer
    std::unique_ptr<ScoreMaps> score_maps_;  // in the dense phase, unless it never ends
    Transition transition_;
    MapHistory history_;
    std::vector<std::vector<double>> pooled_;  // [layers] of [nb, nb], of the last evaluation
    OneCycleSchedule schedule_;
    std::int64_t schedule_start_ = 0;  // steps done when the schedule (re)started
    Phase phase_ = Phase::kDense;
    bool turns_sparse_ = false;
    double density_ = 1.0;  // mean over layers
    std::vector<double> dense_ms_, sparse_ms_;
    TrainReport report_;
    ProgressState state_;
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
    std::unique_ptr<BackgroundTiers> tiers_;  // of attention_, in the sparse phase
};

Training::Training(const TrainSettings& settings, const Dataset& data, Device& device,
                   KernelCache& cache, RunFolder& folder, Progress& progress)
    : settings_(settings),
      data_(data),
      device_(device),
      cache_(cache),
      folder_(folder),
      progress_(progress),
      metrics_(folder.metrics_file()),
      model_(model_settings(settings), device, cache),
      batches_(data.train, settings.seed, settings.batch, settings.length),
      runner_(model_, device, batches_, optimiser_settings(settings), settings.batch),
      transition_(settings.layers,
                  {.fixed_step = settings.transition_step, .percent = settings.transition_change}),
      history_(settings.layers),
      pooled_(static_cast<std::size_t>(settings.layers)),
      schedule_(schedule_over(settings, settings.steps)) {
    folder.write_device(device_json(device));
    // Dense attention is the full pattern on the same path; every layer shares it. Its kernels are
    // tier 0 of every pattern, as that changes their tables alone: the transition compiles nothing.
    // (Autotuning measures the pattern itself, and so waits for it.)
    attention_ = compile_dense();
    model_.set_attention(std::vector<CompiledAttention*>(static_cast<std::size_t>(settings.layers),
                                                         attention_.front().get()));
    if (!settings.dense) {
        const bool keep = transition_.needs_maps() && settings.scores == ScoreMode::kExact;
        score_maps_ = std::make_unique<ScoreMaps>(attention_of(settings, model_.dtype()),
                                                  settings.discovery, keep, device, cache);
        folder.write_kernel(score_maps_->kernel(), device.target().back_end);
    }
    for (const JitKernel& kernel : model_.kernels().compiled()) {
        folder.write_kernel(kernel, device.target().back_end);
    }
    for (const JitKernel* kernel : model_.fused_kernels()) {
        folder.write_kernel(*kernel, device.target().back_end);
    }
    write_kernels(attention_);
    progress.say(compiled_text(cache.counters()));
    state_.total_steps = settings.steps;
}

AttentionLayers Training::compile_dense() {
    const BlockPattern full = BlockPattern::full(settings_.length, settings_.discovery.block);
    const Attention attention = attention_of(settings_, model_.dtype());
    return compile_attention(attention, {&full, 1}, device_, cache_, options_of(settings_));
}

void Training::write_kernels(const AttentionLayers& layers) {
    for (const auto& layer : layers) {
        for (const KernelRole role :
             {KernelRole::kForward, KernelRole::kQueryGradient, KernelRole::kKeyValueGradient}) {
            folder_.write_kernel(layer->part(role).jit, device_.target().back_end);
        }
    }
}

// Between two steps: tier 1 of the layers that are compiled by now.
void Training::decide_tiers() {
    while (tiers_ != nullptr && tiers_->ready()) {
        collect();  // frees the marks, and keeps the measurement out of step times
        const TierVerdict verdict =
            tiers_->decide([this](int layer) { return model_.attention_arguments(layer); });
        progress_.say(verdict.text());
        report_.tiers.push_back(verdict);
        if (!tiers_->pending()) tiers_.reset();
        if (verdict.taken) write_kernels(attention_);
    }
}

void Training::step() {
    decide_tiers();
    runner_.run(schedule_.at(runner_.steps_done() - schedule_start_));
    const std::int64_t done = runner_.steps_done();
    const bool evaluation = done % settings_.eval_every == 0;
    if (runner_.due() || evaluation || done == settings_.steps) collect();
    if (diverged()) return;
    if (phase_ == Phase::kDense && !settings_.dense) {
        const bool by_rule = transition_.needs_maps() && evaluation && take_score_maps();
        const bool by_step = transition_.reached(done);
        if (by_step) {
            collect();  // the step is done now
            const auto begin = std::chrono::steady_clock::now();
            take_score_maps();
            report_.stall.maps_ms = milliseconds_since(begin);
        }
        turns_sparse_ = (by_rule || by_step) && done < settings_.steps && !diverged();
    }
    if (evaluation && !diverged()) evaluate_now();
}

// The first divergence is said and kept; a later one may be the first that training cannot go on from.
void Training::note(const Divergence& divergence) {
    if (report_.divergence && !divergence.ended_training) return;
    progress_.say(divergence.sentence());
    report_.divergence = divergence;
}

void Training::collect() {
    for (const StepRecord& step : runner_.collect()) {
        if (has_diverged(step) && !report_.divergence) {
            Divergence found =
                find_divergence(step, step.step == runner_.steps_done(), model_, device_);
            found.ended_training = settings_.on_divergence == OnDivergence::kStop;
            note(found);
        }
        metrics_.write({.step = step.step,
                        .phase = phase_,
                        .split = "train",
                        .loss = step.loss,
                        .accuracy = step.accuracy,
                        .learning_rate = step.learning_rate,
                        .step_ms = step.step_ms,
                        .density = density_,
                        .seconds = seconds()});
        (phase_ == Phase::kDense ? dense_ms_ : sparse_ms_).push_back(step.step_ms);
        report_.not_finite_gradients += step.not_finite;
        smooth(state_, step.loss, step.accuracy, step.step_ms);
    }
    state_.phase = phase_;
    state_.step = runner_.steps_done();
    progress_.update(state_);
}

void Training::record(std::string_view split, const Evaluation& evaluation) {
    metrics_.write({.step = runner_.steps_done(),
                    .phase = phase_,
                    .split = split,
                    .loss = evaluation.loss,
                    .accuracy = evaluation.accuracy,
                    .learning_rate = {},
                    .step_ms = {},
                    .density = density_,
                    .seconds = seconds()});
    progress_.say(fmt::format("step {}: {} loss {:.3f}, accuracy {:.1f} %", runner_.steps_done(),
                              split, evaluation.loss, 100.0 * evaluation.accuracy));
}

void Training::evaluate_now() {
    report_.validation = evaluate(model_, device_, data_.validation, settings_.batch);
    record("validation", *report_.validation);
}

// The maps of the step just done, which is why they come before any other pass. True when the rule
// says that training turns sparse now.
bool Training::take_score_maps() {
    std::vector<double> distances;
    for (int layer = 0; layer < settings_.layers; ++layer) {
        ScoreMaps::Map map = score_maps_->take(model_.attention_arguments(layer));
        if (const auto found =
                find_divergence(runner_.steps_done(), layer, map.pooled, map.scores)) {
            note(*found);
            return false;
        }
        if (map.scores.empty()) map.scores.assign(map.pooled.begin(), map.pooled.end());
        pooled_[static_cast<std::size_t>(layer)] = std::move(map.pooled);
        if (const auto distance = history_.advance(layer, map.scores)) {
            distances.push_back(*distance);
        }
    }
    if (distances.empty()) return false;  // the first maps have nothing to be compared with
    const bool holds = transition_.observe(distances);
    if (!transition_.changes().empty())
        progress_.say(changes_text(transition_.changes(), settings_));
    return holds;
}

void Training::turn_sparse() {
    collect();  // dense steps are recorded as such; they are done now
    const auto begin = std::chrono::steady_clock::now();
    std::vector<BlockPattern> patterns;
    for (int layer = 0; layer < settings_.layers; ++layer) {
        const auto& pooled = pooled_[static_cast<std::size_t>(layer)];
        patterns.push_back(discover(pooled, settings_.length, settings_.discovery));
        folder_.write_pattern(layer, patterns.back(), pooled);
        report_.densities.push_back(patterns.back().density());
        progress_.say(pattern_text(layer, patterns.back(), progress_.picture_columns()));
    }
    report_.stall.discovery_ms = milliseconds_since(begin);
    const auto before = cache_.counters();
    const auto compilation = std::chrono::steady_clock::now();
    const Attention attention = attention_of(settings_, model_.dtype());
    AttentionLayers sparse =
        compile_attention(attention, patterns, device_, cache_, options_of(settings_));
    device_.synchronize();  // tables have arrived
    report_.stall.kernels_ms = milliseconds_since(compilation);
    const auto after = cache_.counters();
    report_.transition_compiled =
        after.compiled - before.compiled + after.from_disk - before.from_disk;
    write_kernels(sparse);
    std::vector<CompiledAttention*> layers;
    for (const auto& layer : sparse) layers.push_back(layer.get());
    model_.set_attention(std::move(layers));
    attention_ = std::move(sparse);
    score_maps_.reset();
    history_ = MapHistory(settings_.layers);  // frees A^s
    phase_ = Phase::kSparse;
    density_ = mean_of(report_.densities);
    if (settings_.tiers > 0) {
        tiers_ = std::make_unique<BackgroundTiers>(attention_, device_, cache_);
    }
    report_.transition_step = schedule_start_ = runner_.steps_done();
    schedule_ = schedule_over(settings_, settings_.steps - schedule_start_);
    state_.step_ms = 0;  // the rate starts anew
    turns_sparse_ = false;
    report_.stall.total_ms = report_.stall.maps_ms + milliseconds_since(begin);
    progress_.say(transition_text(attention_, before, after, report_.stall));
}

AttentionTime Training::time_launch(CompiledAttention& attention, int layer,
                                    const Buffer& lengths) {
    SpionAttentionArguments arguments = model_.attention_arguments(layer);
    arguments.lengths = lengths.as<int>();
    arguments.batch = settings_.batch;
    attention.forward(arguments);  // warms caches and clocks
    device_.mark(0);
    attention.forward(arguments);
    device_.mark(1);
    attention.backward(arguments);
    device_.mark(2);
    return {.forward_ms = device_.milliseconds_between(0, 1),
            .backward_ms = device_.milliseconds_between(1, 2)};
}

// What the attention of each layer costs, alone: the step's time holds everything else too. The
// values left by the last pass do as operands; gradients and outputs are overwritten.
void Training::time_attention() {
    if (runner_.steps_done() == 0) return;  // interrupted before the operands were there
    const std::vector<int> full(static_cast<std::size_t>(settings_.batch),
                                static_cast<int>(settings_.length));
    Buffer lengths(device_, full.size() * sizeof(int));  // int32 [B], all L
    device_.copy_in(lengths.data(), full.data(), lengths.bytes());
    for (int layer = 0; layer < settings_.layers; ++layer) {
        const bool shared = attention_.size() == 1;  // dense: one for all layers
        CompiledAttention& attention = *attention_[shared ? 0 : static_cast<std::size_t>(layer)];
        report_.attention_times.push_back(time_launch(attention, layer, lengths));
    }
    report_.attention_batch = settings_.batch;
    if (phase_ == Phase::kSparse) {  // the dense kernels are still in memory
        report_.dense_time = time_launch(*compile_dense().front(), 0, lengths);
    }
}

TrainReport Training::finish() {
    collect();
    if (tiers_ != nullptr) {
        progress_.say(fmt::format("training ended before tier 1 was ready: {} of {} layers decided",
                                  report_.tiers.size(), settings_.layers));
        tiers_.reset();
    }
    report_.interrupted = interrupt_.requested() && runner_.steps_done() < settings_.steps;
    if (!report_.interrupted && !diverged()) {
        report_.test = evaluate(model_, device_, data_.test, settings_.batch);
        record("test", *report_.test);
    }
    report_.steps_done = runner_.steps_done();
    time_attention();
    report_.dense_step_ms = median(dense_ms_);
    report_.first_sparse_step_ms = sparse_ms_.empty() ? 0 : sparse_ms_.front();
    report_.sparse_step_ms = median(sparse_ms_);
    report_.peak_bytes = device_.peak_bytes();
    return report_;
}

}  // namespace

TrainReport train(const TrainSettings& settings, const Dataset& data, Device& device,
                  KernelCache& cache, RunFolder& folder, Progress& progress) {
    Training training(settings, data, device, cache, folder, progress);
    while (training.goes_on() && !training.turns_sparse()) training.step();  // dense phase
    if (training.goes_on() && training.turns_sparse()) {
        training.turn_sparse();                      // transition
        while (training.goes_on()) training.step();  // sparse phase
    }
    return training.finish();
}

}  // namespace spion
