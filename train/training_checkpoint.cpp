// What a training run keeps of itself, and how it goes on from that.
#include <fmt/format.h>

#include <utility>

#include "ir/error.h"
#include "train/training.h"

namespace spion {
namespace {

std::vector<float> read_floats(Device& device, const Buffer& buffer) {
    std::vector<float> values(buffer.bytes() / sizeof(float));
    device.copy_out(values.data(), buffer.data(), buffer.bytes());
    return values;
}

}  // namespace

void Training::go_on_from(const Checkpoint& checkpoint) {
    saved_ = checkpoint.state;
    const std::int64_t step = saved_.step;
    start_ = begin_ - std::chrono::duration_cast<Clock::duration>(
                          std::chrono::duration<double>(saved_.seconds));
    first_step_ = last_checkpoint_step_ = step;
    model_.parameters().upload(checkpoint.values);
    model_.parameters().upload_moments(checkpoint.first_moment, checkpoint.second_moment);
    report_.not_finite_gradients = saved_.not_finite_gradients;
    if (saved_.loss_scale && model_.scales_loss()) {
        model_.set_loss_scale(*saved_.loss_scale);
        report_.skipped_steps = saved_.loss_scale->skipped;
    }
    dense_ms_ = metrics_.step_ms(Phase::kDense);
    sparse_ms_ = metrics_.step_ms(Phase::kSparse);
    if (saved_.transition_step) {
        for (const HeadPatterns& patterns : checkpoint.patterns) note_patterns(patterns);
        schedule_start_ = *saved_.transition_step;
        go_on_with(compile_patterns(checkpoint.patterns));
        saved_.tuned.clear();  // used up
    } else {
        if (!saved_.distances.empty()) transition_.go_on_from(saved_.distances);
        for (std::size_t layer = 0; layer < checkpoint.maps.size(); ++layer) {
            history_.advance(static_cast<int>(layer), checkpoint.maps[layer]);
        }
    }
    progress_.say(fmt::format("going on after step {} of {}", step, settings_.steps));
    if (saved_.processes != ranks_.rank().count) {
        progress_.say(fmt::format(
            "the run had {} processes and has {} now: the same samples a step ({} batches of {} "
            "each), but sums round otherwise, so that losses differ from here in the last bits",
            saved_.processes, ranks_.rank().count, settings_.accumulate, settings_.batch));
    }
}

Checkpoint Training::checkpoint() {
    Checkpoint now{.settings = settings_,
                   .classes = data_.classes,
                   .class_names = data_.class_names,
                   .state = saved_,
                   .values = read_floats(device_, model_.parameters().values()),
                   .first_moment = read_floats(device_, model_.parameters().first_moment()),
                   .second_moment = read_floats(device_, model_.parameters().second_moment()),
                   .patterns = {},
                   .maps = {}};
    now.state.step = runner_.steps_done();
    now.state.seconds = seconds();
    now.state.processes = ranks_.rank().count;
    now.state.not_finite_gradients = report_.not_finite_gradients;
    if (model_.scales_loss()) now.state.loss_scale = model_.loss_scale();
    now.state.transition_step = report_.transition_step;
    now.state.tuned = tuned_launches();
    now.state.distances.assign(transition_.previous().begin(), transition_.previous().end());
    if (phase_ == Phase::kSparse) {
        for (const auto& layer : attention_) now.patterns.push_back(layer->patterns());
    }
    return now;
}

// A checkpoint that cannot be written ends nothing: the one before is there still.
void Training::keep(const std::function<void()>& write) {
    if (!leads()) return;
    try {
        write();
    } catch (const UserError& error) {
        progress_.say(fmt::format("no checkpoint was kept of step {}: {}; training goes on",
                                  runner_.steps_done(), error.what()));
    }
}

void Training::write_checkpoint_now() {
    collect();
    keep([this] {
        Checkpoint now = checkpoint();
        // What the transition rule compares the next maps with.
        if (phase_ == Phase::kDense && transition_.needs_maps()) {
            for (const auto& map : history_.last()) {
                if (!map.empty()) now.maps.push_back(map);
            }
        }
        checkpoints_.write(now, settings_.keep_checkpoints);
    });
    last_checkpoint_ = Clock::now();
    agreed_.checkpoint = false;
    last_checkpoint_step_ = runner_.steps_done();
}

void Training::checkpoint_if_due() {
    const std::int64_t done = runner_.steps_done();
    const bool by_steps = settings_.checkpoint_every > 0 && done % settings_.checkpoint_every == 0;
    const bool by_time = alone() ? checkpoint_is_due() : agreed_.checkpoint;
    const bool is_new = done > last_checkpoint_step_ && done < settings_.steps;
    if ((by_steps || by_time) && is_new && !diverged()) write_checkpoint_now();
}

void Training::write_best(double accuracy) {
    if (accuracy <= saved_.best_accuracy) return;
    saved_.best_accuracy = accuracy;
    saved_.best_step = runner_.steps_done();
    keep([this] { checkpoints_.write_best(checkpoint()); });
}

}  // namespace spion
