#include "train/training.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "ir/error.h"
#include "train/report.h"

namespace spion {
namespace {

ModelSettings model_settings(const TrainSettings& s, const TaskData& data, int processes) {
    const int needed = data.vocabulary + (s.pooling == Pooling::kCls ? 1 : 0);
    if (needed > s.vocabulary) {
        throw UserError("vocabulary is {}, but the data has {} tokens{}: raise --vocabulary",
                        s.vocabulary, data.vocabulary,
                        needed > data.vocabulary ? " and pooling cls takes one more" : "");
    }
    return {.shape = model_shape(s, data.classes),
            .batch = s.batch,
            .dropout = s.dropout,
            .seed = s.seed,
            .embedding = {.deviation = s.embedding_deviation,
                          .sine = s.sine_embedding,
                          .columns = data.columns,
                          .before = s.pooling == Pooling::kCls ? 1 : 0},
            .precision = s.precision,
            .loss_scale = first_loss_scale(s),
            .loss_scale_growth = s.loss_scale_growth,
            .processes = processes};
}

Model make_model(const TrainSettings& settings, const TaskData& data, Device& device,
                 KernelCache& cache, Communicator& ranks) {
    const FirstOfMachine first(ranks);
    return {model_settings(settings, data, ranks.rank().count), device, cache};
}

OptimiserSettings optimiser_settings(const TrainSettings& s) {
    return {.beta1 = s.beta1,
            .beta2 = s.beta2,
            .epsilon = s.epsilon,
            .weight_decay = s.weight_decay,
            .clip = s.clip};
}

}  // namespace

CompileOptions compile_options(const TrainSettings& s) {
    CompileOptions options;
    options.autotune = s.autotune;
    options.batch = std::int64_t{s.batch} * task_named(s.task).towers;
    options.packed_rows = s.autotune ? std::nullopt : std::optional(1);
    options.density = s.dense ? 1 : kPlannedDensity;
    // The dense phase has the kernels of the sparse one. What was tuned goes on by its tile shapes alone,
    // which do not say into what blocks a pattern was cut.
    options.shared = !s.dense || s.autotune;
    return options;
}

OneCycleSchedule schedule_over(const TrainSettings& s, std::int64_t steps) {
    return {s.learning_rate, steps, static_cast<double>(s.warmup) / static_cast<double>(s.steps)};
}

Training::Training(const TrainSettings& settings, const TaskData& data, Device& device,
                   KernelCache& cache, RunFolder& folder, Progress& progress,
                   const Checkpoint* from, Communicator& ranks)
    : settings_(settings),
      ranks_(ranks),
      data_(data),
      device_(device),
      cache_(cache),
      folder_(folder),
      progress_(progress),
      metrics_(folder.metrics_file(),
               from == nullptr || !folder.is_written() ? 0 : from->state.step),
      model_(make_model(settings, data, device, cache, ranks)),
      batches_(*data.train, settings.seed, settings.batch, settings.length,
               std::int64_t{settings.accumulate} * ranks.rank().count *
                       (from == nullptr ? 0 : from->state.step) +
                   ranks.rank().index,
               ranks.rank().count, model_.shape().class_token()),
      runner_(model_, device, batches_, optimiser_settings(settings), settings.batch,
              settings.accumulate, from == nullptr ? 0 : from->state.step, &ranks, settings.graph),
      checkpoints_(folder.path() / "checkpoints"),
      transition_(settings.layers,
                  {.fixed_step = settings.transition_step, .percent = settings.transition_change}),
      history_(settings.layers),
      pooled_(static_cast<std::size_t>(settings.layers)),
      schedule_(schedule_over(settings, settings.steps)) {
    require_same_run();
    report_.processes = ranks.rank().count;
    folder.write_device(device_json(device));
    if (settings.tensorboard && leads()) {
        events_.emplace(folder.path() / "tensorboard", from == nullptr ? 0 : from->state.step);
    }
    state_.total_steps = settings.steps;
    if (from != nullptr) go_on_from(*from);
    if (phase_ == Phase::kDense) {
        settings.sparse_from_start ? turn_sparse() : begin_dense();
    }
    for (const JitKernel& kernel : model_.kernels().compiled()) {
        folder.write_kernel(kernel, device.target().back_end);
    }
    for (const JitKernel* kernel : model_.fused_kernels()) {
        folder.write_kernel(*kernel, device.target().back_end);
    }
    progress.say(compiled_text(cache.counters()));
    if (settings.graph && !runner_.captures() && device.target().back_end == BackEnd::kCuda) {
        progress.say(
            alone() ? "each kernel is launched by itself, as SPION_WAIT_AFTER_LAUNCH waits for it"
                    : "each kernel is launched by itself: steps of several processes are not "
                      "captured in CUDA graphs");
    }
}

void Training::begin_dense() {
    // Dense attention is the full pattern on the same path; every layer shares it. Its kernels are
    // tier 0 of every pattern, as that changes their tables alone: the transition compiles nothing.
    // (Autotuning measures the pattern itself, and so waits for it.)
    attention_ = compile_dense();
    saved_.tuned.clear();  // used up
    model_.set_attention(std::vector<CompiledAttention*>(static_cast<std::size_t>(settings_.layers),
                                                         attention_.front().get()));
    write_kernels(attention_);
    if (!settings_.dense && settings_.pattern != "discovered") {
        // Of a file that cannot be used a person hears before the first step, not after the last
        // dense one.
        for (int head = 0; head < attention_.front()->patterns().count(); ++head) {
            find_pattern(0, head);
        }
    }
    if (!settings_.dense) {
        const FirstOfMachine first(ranks_);
        const bool keep = transition_.needs_maps() && settings_.scores == ScoreMode::kExact;
        score_maps_ = std::make_unique<ScoreMaps>(attention_of(settings_, model_.dtype()),
                                                  settings_.discovery, keep, device_, cache_);
        folder_.write_kernel(score_maps_->kernel(), device_.target().back_end);
        if (settings_.per_head && settings_.pattern == "discovered") {
            head_maps_ = std::make_unique<HeadMaps>(attention_of(settings_, model_.dtype()),
                                                    settings_.discovery, device_, cache_);
            folder_.write_kernel(head_maps_->kernel(), device_.target().back_end);
        }
    }
}

void Training::step() {
    decide_tiers();
    runner_.run(schedule_.at(runner_.steps_done() - schedule_start_));
    const std::int64_t done = runner_.steps_done();
    const bool evaluation = done % settings_.eval_every == 0;
    if (must_collect() || evaluation || done == settings_.steps) collect();
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
        if (turns_sparse_ && head_maps_) take_head_maps();
    }
    if (evaluation && !diverged()) evaluate_now();
    if (!turns_sparse_) checkpoint_if_due();
}

// The first divergence is said and kept; a later one may be the first that training cannot go on from.
void Training::note(const Divergence& divergence) {
    if (report_.divergence && !divergence.ended_training) return;
    progress_.say(divergence.sentence());
    report_.divergence = divergence;
}

void Training::collect() {
    std::vector<StepRecord> steps = runner_.collect();
    agree(steps);
    for (const StepRecord& step : steps) {
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
        if (events_) {
            events_->scalar("train/loss", step.step, step.loss);
            events_->scalar("train/accuracy", step.step, step.accuracy);
            events_->scalar("train/learning_rate", step.step, step.learning_rate);
            events_->scalar("train/step_ms", step.step, step.step_ms);
            events_->scalar("density", step.step, density_);
            if (settings_.per_head) events_->scalar("balance", step.step, balance_);
            if (model_.scales_loss()) {
                events_->scalar("train/loss_scale", step.step, step.loss_scale);
            }
        }
        report_.not_finite_gradients += step.left_out() ? 0 : step.not_finite;
        report_.skipped_steps += step.left_out() ? 1 : 0;
        if (model_.scales_loss()) report_.loss_scale = step.loss_scale;
        smooth(state_, step.loss, step.accuracy, step.step_ms);
    }
    if (events_) events_->flush();
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
    if (events_) {
        events_->scalar(fmt::format("{}/loss", split), runner_.steps_done(), evaluation.loss);
        events_->scalar(fmt::format("{}/accuracy", split), runner_.steps_done(),
                        evaluation.accuracy);
        events_->flush();
    }
    progress_.say(fmt::format("step {}: {} loss {:.3f}, accuracy {:.1f} %", runner_.steps_done(),
                              split, evaluation.loss, 100.0 * evaluation.accuracy));
}

void Training::evaluate_now() {
    report_.validation = evaluate_split(data_.validation);
    record("validation", *report_.validation);
    write_best(report_.validation->accuracy);
}

// The maps of the step just done, which is why they come before any other pass. True when the rule
// says that training turns sparse now.
bool Training::take_score_maps() {
    std::vector<double> distances;
    for (int layer = 0; layer < settings_.layers; ++layer) {
        SpionAttentionArguments arguments = model_.attention_arguments(layer);
        arguments.batch /= model_.shape().towers;  // the first tower's: as the paper, of pairs
        ScoreMaps::Map map = score_maps_->take(arguments);
        average(map);
        if (const auto found =
                find_divergence(runner_.steps_done(), layer, map.pooled, map.scores)) {
            note(*found);
            return false;
        }
        if (map.scores.empty()) map.scores.assign(map.pooled.begin(), map.pooled.end());
        folder_.write_map(layer, runner_.steps_done(), map.pooled);
        pooled_[static_cast<std::size_t>(layer)] = {std::move(map.pooled)};
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

// Of the step whose maps have made training turn sparse. The transition looks at the layers' means,
// so that it comes at the same step as without a pattern a head, and the dense steps cost the same.
void Training::take_head_maps() {
    const auto begin = std::chrono::steady_clock::now();
    for (int layer = 0; layer < settings_.layers; ++layer) {
        SpionAttentionArguments arguments = model_.attention_arguments(layer);
        arguments.batch /= model_.shape().towers;
        auto& maps = pooled_[static_cast<std::size_t>(layer)];
        maps = head_maps_->take(arguments);
        for (std::vector<double>& map : maps) average(map);
    }
    report_.stall.maps_ms += milliseconds_since(begin);
}

}  // namespace spion
