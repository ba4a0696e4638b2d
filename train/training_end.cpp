// The end of a training run: the test, and what a layer's attention costs.
#include <fmt/format.h>

#include "runtime/measure.h"
#include "train/report.h"
#include "train/training.h"

namespace spion {

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
    // Interrupted before the operands were there.
    if (runner_.steps_done() == first_step_ && !report_.test) return;
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
    const bool done = runner_.steps_done() == settings_.steps;
    report_.interrupted = interrupting() && !done;
    if (report_.interrupted) report_.signal = alone() ? interrupting_signal() : agreed_.signal;
    report_.out_of_time = has_no_time() && !done && !report_.interrupted && !diverged();
    if (!diverged() && (runner_.steps_done() > last_checkpoint_step_)) write_checkpoint_now();
    if (done && !diverged()) {
        report_.test = evaluate_split(data_.test);
        record("test", *report_.test);
    }
    report_.steps_done = runner_.steps_done();
    report_.captured_graphs = runner_.captured_graphs();
    time_attention();
    report_.dense_step_ms = median(dense_ms_);
    report_.first_sparse_step_ms = sparse_ms_.empty() ? 0 : sparse_ms_.front();
    report_.sparse_step_ms = median(sparse_ms_);
    report_.peak_bytes = device_.peak_bytes();
    return report_;
}

}  // namespace spion
