// The three phases of SPION's training (Yoon, Han, Moon: SPION, PAKDD 2024): dense, transition,
// sparse.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "compiler/compile_attention.h"
#include "compiler/tune/tiers.h"
#include "runtime/ranks/communicator.h"
#include "train/divergence.h"
#include "train/progress.h"
#include "train/run_folder.h"
#include "train/settings.h"
#include "train/step_runner.h"
#include "train/task.h"

namespace spion {

struct Checkpoint;  // train/checkpoint.h

// One launch of a layer's attention on a whole batch of full-length samples, timed at the end.
struct AttentionTime {
    double forward_ms = 0;
    double backward_ms = 0;  // dQ and then dK, dV
};

// Where the time between the last dense step and the first sparse one went, the device's included.
// Not counted is what evaluations without a transition need too: the validation of that step, and
// the score maps that the transition rule has asked for.
struct StallTimes {
    double maps_ms = 0;       // score maps that nothing else wanted: where the step is fixed, and
                              // those of each head
    double discovery_ms = 0;  // patterns, written to the run's folder and drawn
    double kernels_ms = 0;    // lowering, compiling, loading, uploading
    double total_ms = 0;      // these, the swap, and writing kernels to the run's folder
};

struct TrainReport {
    std::int64_t steps_done = 0;
    std::optional<std::int64_t> transition_step;  // dense steps before training turned sparse
    bool interrupted = false;
    int signal = 0;            // that interrupted it, in this process or another
    int processes = 1;         // that trained together
    bool out_of_time = false;  // ended by settings.minutes
    // [layers]; empty when still dense: the mean of the heads' patterns, and the fullest one's blocks
    // over the mean, 1 where they share one.
    std::vector<double> densities, balances;
    StallTimes stall;
    double first_sparse_step_ms = 0;
    int transition_compiled = 0;     // kernels compiled, or read from disk, at the transition
    std::vector<TierVerdict> tiers;  // layers whose tier was decided, in that order
    double dense_step_ms = 0, sparse_step_ms = 0;  // medians; 0 when there were no such steps
    std::optional<Evaluation> validation;          // the last one
    std::optional<Evaluation> test;                // at the end; none when interrupted
    std::int64_t not_finite_gradients = 0;
    std::int64_t skipped_steps = 0;              // whose scaled gradients overflowed
    double loss_scale = 0;                       // of the last step; 0: none
    std::optional<Divergence> divergence;        // the first, and whether training ended there
    std::size_t peak_bytes = 0;                  // of device memory
    int captured_graphs = 0;                     // of the launches of steps
    int attention_batch = 0;                     // B of the launches below
    std::vector<AttentionTime> attention_times;  // [layers]; empty when no step was done
    std::optional<AttentionTime> dense_time;     // of one layer, when training turned sparse
};

// Trains, writing metrics, patterns, kernels and checkpoints to `folder` on the way. The first
// Ctrl-C ends it after the step at hand; so does the first step whose loss or gradients are not
// finite, unless the settings say to go on (on a GPU, whose steps are not waited for, up to 32 steps
// later). The same settings on the same device give the same losses, bit for bit, also when a run was
// stopped and goes on `from` a checkpoint of its folder.
//
// ranks: the processes that train together, each with batches of its own, of which the first writes
// to the folder; null: this one is alone. As many of them give the same losses again, bit for bit;
// others, or one with as many batches a step (accumulate), the same up to rounding.
TrainReport train(const TrainSettings& settings, const TaskData& data, Device& device,
                  KernelCache& cache, RunFolder& folder, Progress& progress,
                  const Checkpoint* from = nullptr, Communicator* ranks = nullptr);

}  // namespace spion
