// Runs training steps without waiting for the device, and reads their results back several at a
// time.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "runtime/ranks/communicator.h"
#include "train/data/dataset.h"
#include "train/gradient_sums.h"
#include "train/model.h"
#include "train/step_graphs.h"

namespace spion {

struct StepRecord {
    std::int64_t step = 0;  // steps done, from 1
    double loss = 0;        // mean over the batch
    double accuracy = 0;
    double learning_rate = 0;
    double step_ms = 0;           // between this step's end and the one's before, on the device
    std::int64_t not_finite = 0;  // gradient values that were no finite number
    std::vector<int> items;       // work items of AdamW that counted some of them, in order
    double loss_scale = 0;        // of its gradients; 0: they are not scaled

    // Its scaled gradients overflowed, so that nothing was learnt from it. Not so at a scale of 1,
    // which is as low as it gets, or of a loss that is no number itself.
    bool left_out() const;
};

class StepRunner {
  public:
    // Everything is the caller's and must outlive the runner. A step has `accumulate` batches of
    // `batch` samples, whose gradients it adds up; steps_done: before this run. ranks: add up theirs
    // too; null: this process is alone. graphs: the launches of a step are captured, which those of several
    // processes are not, as their sums go on beside them.
    StepRunner(Model& model, Device& device, BatchStream& batches,
               const OptimiserSettings& optimiser, int batch, int accumulate = 1,
               std::int64_t steps_done = 0, Communicator* ranks = nullptr, bool graphs = false);

    // One step: upload, forward, backward, update. Asynchronous. Call collect() when full().
    void run(double learning_rate);
    std::int64_t steps_done() const { return steps_done_; }
    int pending() const { return static_cast<int>(pending_.size()); }
    bool full() const { return static_cast<int>(pending_.size()) == kPending; }
    // full(), or some steps are pending and the last collect() was a while ago, or the last step is
    // known not to have been finite: on the host, where looking costs nothing, at once.
    bool due() const;

    // Waits for the pending steps and returns their records, oldest first.
    std::vector<StepRecord> collect();

    // To be called before what a step launches changes.
    void forget_graphs() { graphs_.forget(); }
    bool captures() const { return graphs_.on(); }
    int captured_graphs() const { return graphs_.captured(); }

  private:
    // One mark a step and one before the first fit into the device's 64 slots.
    static constexpr int kPending = 32;
    StepResults results(int slot) const;
    bool alone() const { return ranks_ == nullptr || ranks_->rank().alone(); }
    std::int64_t samples() const { return std::int64_t{batch_} * accumulate_; }
    bool last_step_is_finite() const;
    SpionPassState state_of(int slot, int part, double learning_rate) const;
    void launch_pass(int part, GradientSums* sums);  // sums: null when alone

    Model* model_;
    Device* device_;
    BatchStream* batches_;
    Communicator* ranks_;  // null: alone
    OptimiserSettings optimiser_;
    int batch_, accumulate_;
    std::int64_t steps_done_ = 0;
    std::vector<StepRecord> pending_;  // step and learning rate filled in
    bool must_look_ = false;           // the last step was not finite
    Buffer losses_;                    // fp32 [kPending, samples]
    Buffer correct_;                   // int32 [kPending, samples]
    Buffer not_finite_;                // int32 [kPending, items]
    Buffer loss_scales_;               // fp32 [kPending]
    StepGraphs graphs_;
    std::chrono::steady_clock::time_point last_collect_ = std::chrono::steady_clock::now();
};

struct Evaluation {
    double loss = 0;  // mean over the samples
    double accuracy = 0;
};

// The model without dropout on every sample of a split, in batches of up to `batch`. Waits.
Evaluation evaluate(Model& model, Device& device, const Samples& split, int batch);

}  // namespace spion
