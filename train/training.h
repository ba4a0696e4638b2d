// A training run: what train() (train/phases.h) walks through. Inside train/ only.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "compiler/discovery/transition.h"
#include "train/checkpoint.h"
#include "train/event_file.h"
#include "train/interrupt.h"
#include "train/phases.h"
#include "train/schedule.h"
#include "train/score_maps.h"

namespace spion {

using AttentionLayers = std::vector<std::unique_ptr<CompiledAttention>>;

// The kernels of the dense phase are those of the sparse one, so that its start compiles nothing;
// packing depends on the pattern, so tiles may be packed only where kernels are tuned for the
// pattern, and compiled anew.
CompileOptions compile_options(const TrainSettings& settings);
OneCycleSchedule schedule_over(const TrainSettings& settings, std::int64_t steps);

inline double milliseconds_since(std::chrono::steady_clock::time_point begin) {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin)
        .count();
}
inline double minutes_since(std::chrono::steady_clock::time_point begin) {
    return milliseconds_since(begin) / 60000.0;
}

class Training {
  public:
    // from: where an earlier process left off; null to begin.
    Training(const TrainSettings& settings, const TaskData& data, Device& device,
             KernelCache& cache, RunFolder& folder, Progress& progress, const Checkpoint* from,
             Communicator& ranks);

    bool goes_on() const {
        return runner_.steps_done() < settings_.steps && !diverged() && !interrupting() &&
               !has_no_time();
    }
    bool turns_sparse() const { return turns_sparse_; }
    void step();
    void turn_sparse();
    TrainReport finish();

  private:
    // Training ends because its values are not finite.
    bool diverged() const { return report_.divergence && report_.divergence->ended_training; }
    void begin_dense();
    void note(const Divergence& divergence);
    void collect();
    void decide_tiers();
    void evaluate_now();
    bool out_of_time() const {
        return settings_.minutes > 0 && minutes_since(begin_) >= settings_.minutes;
    }
    // training_processes.cpp
    bool alone() const { return ranks_.rank().alone(); }
    bool leads() const { return ranks_.rank().leads(); }
    bool interrupting() const;  // by a signal: to this process, or as agreed
    bool has_no_time() const;
    bool checkpoint_is_due() const;
    bool must_collect() const;
    void require_same_run();
    void agree(std::vector<StepRecord>& steps);
    void average(std::vector<double>& map);
    void average(ScoreMaps::Map& map);
    void compare(std::span<const HeadPatterns> layers);
    Evaluation evaluate_split(const std::shared_ptr<const Samples>& split);
    void start_tiers();
    // training_checkpoint.cpp
    void go_on_from(const Checkpoint& checkpoint);
    Checkpoint checkpoint();
    void checkpoint_if_due();
    void write_checkpoint_now();
    void write_best(double accuracy);
    void keep(const std::function<void()>& write);
    // training_sparse.cpp
    std::vector<HeadPatterns> find_patterns();
    BlockPattern find_pattern(int layer, int head) const;
    void note_patterns(const HeadPatterns& patterns);  // of the next layer, into the report
    AttentionLayers compile_patterns(std::span<const HeadPatterns> layers);
    void go_on_with(AttentionLayers sparse);
    std::vector<TunedLaunches> tuned_launches() const;  // of attention_; empty: untuned
    bool take_score_maps();
    void take_head_maps();
    void write_kernels(const AttentionLayers& layers);
    double seconds() const {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    }
    void record(std::string_view split, const Evaluation& evaluation);
    AttentionLayers compile_dense();
    AttentionTime time_launch(CompiledAttention& attention, int layer, const Buffer& lengths);
    void time_attention();

    // What several processes have told each other at the last collect().
    struct Agreement {
        int signal = 0;  // that one of them has received
        bool out_of_time = false;
        bool checkpoint = false;  // is due by time
        bool tiers = false;       // the first process of each machine has decided its own
        int steps = 1;            // until the next one
    };

    const TrainSettings& settings_;
    Communicator& ranks_;
    Agreement agreed_;
    const TaskData& data_;
    Device& device_;
    KernelCache& cache_;
    RunFolder& folder_;
    Progress& progress_;
    InterruptGuard interrupt_;
    MetricsFile metrics_;
    std::optional<EventFile> events_;
    Model model_;
    AttentionLayers attention_;  // dense: one for all layers; sparse: one a layer
    BatchStream batches_;
    StepRunner runner_;
    CheckpointFolder checkpoints_;
    CheckpointState saved_;        // best so far, and what was restored
    std::int64_t first_step_ = 0;  // steps done when this process began
    std::int64_t last_checkpoint_step_ = 0;
    std::unique_ptr<ScoreMaps> score_maps_;  // in the dense phase, unless it never ends
    std::unique_ptr<HeadMaps> head_maps_;    // likewise, where a pattern is found in each head's
    Transition transition_;
    MapHistory history_;
    // [layers] of [nb, nb] of the last evaluation; of each head, once training turns sparse.
    std::vector<std::vector<std::vector<double>>> pooled_;
    OneCycleSchedule schedule_;
    std::int64_t schedule_start_ = 0;  // steps done when the schedule (re)started
    Phase phase_ = Phase::kDense;
    bool turns_sparse_ = false;
    double density_ = 1.0;  // mean over layers
    double balance_ = 1.0;  // of the heads' blocks, likewise
    std::vector<double> dense_ms_, sparse_ms_;
    TrainReport report_;
    ProgressState state_;
    using Clock = std::chrono::steady_clock;
    Clock::time_point begin_ = Clock::now();  // of this process's part
    Clock::time_point start_ = begin_;        // of training, as if it had never stopped
    Clock::time_point last_checkpoint_ = begin_;
    Clock::time_point last_agreement_ = begin_;
    bool tiers_wanted_ = false;
    std::unique_ptr<BackgroundTiers> tiers_;  // of attention_, in the sparse phase
};

}  // namespace spion
