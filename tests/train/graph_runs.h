// Runs whose steps are captured and replayed beside the same ones launched kernel by kernel.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/scratch_folder.h"
#include "tests/train/tiny_run.h"

namespace spion {

// Training that turns sparse at step 10 of 24, in the ways whose launches differ.
inline std::vector<std::pair<std::string, TrainSettings>> graph_runs(DeviceChoice device) {
    TrainSettings plain = tiny_settings(device);
    plain.transition_step = 10;
    plain.attention_dropout = 0.1;
    TrainSettings accumulated = plain;  // first, middle and last passes
    accumulated.accumulate = 3;
    accumulated.batch = 2;
    TrainSettings wide = plain;  // fused layers on a GPU
    wide.heads = 2;
    wide.head_dim = 32;
    wide.d_model = 64;
    wide.feed_forward = 128;
    TrainSettings by_rule = plain;  // maps at each evaluation
    by_rule.transition_step = 0;
    by_rule.transition_change = 100;
    by_rule.tiers = 0;
    return {{"plain", plain}, {"accumulated", accumulated}, {"wide", wide}, {"by rule", by_rule}};
}

inline std::filesystem::path checkpoint_file(const std::filesystem::path& run, int step) {
    return run / fmt::format("checkpoints/step-{:08}.safetensors", step);
}

inline void expect_same_training(const Outcome& a, const std::filesystem::path& a_folder,
                                 const Outcome& b, const std::filesystem::path& b_folder) {
    EXPECT_EQ(a.summary_of_losses(), b.summary_of_losses());
    EXPECT_EQ(a.report.transition_step, b.report.transition_step);
    EXPECT_EQ(a.report.skipped_steps, b.report.skipped_steps);
    const Checkpoint of_a = read_checkpoint(checkpoint_file(a_folder, 24)),
                     of_b = read_checkpoint(checkpoint_file(b_folder, 24));
    EXPECT_EQ(of_a.values, of_b.values);
    EXPECT_EQ(of_a.first_moment, of_b.first_moment);
    EXPECT_EQ(of_a.second_moment, of_b.second_moment);
    EXPECT_EQ(of_a.patterns, of_b.patterns);
    ASSERT_EQ(of_a.state.loss_scale.has_value(), of_b.state.loss_scale.has_value());
    if (of_a.state.loss_scale) {
        EXPECT_EQ(of_a.state.loss_scale->scale, of_b.state.loss_scale->scale);
    }
}

// run_on(settings, folder, from): on the device that captures. Two graphs a phase at least, of batches in
// either buffer.
using RunOn =
    std::function<Outcome(const TrainSettings&, const std::filesystem::path&, const Checkpoint*)>;
inline Outcome expect_graphs_change_nothing(TrainSettings settings, const RunOn& run_on) {
    const ScratchFolder folder;
    const auto on = folder.file("on"), off = folder.file("off"), again = folder.file("again");
    settings.checkpoint_every = 13;
    settings.graph = false;
    const Outcome launched = run_on(settings, off, nullptr);
    EXPECT_EQ(launched.report.captured_graphs, 0);
    EXPECT_TRUE(launched.report.transition_step);
    EXPECT_EQ(launched.report.transition_compiled, 0);
    settings.graph = true;
    const Outcome captured = run_on(settings, on, nullptr);
    EXPECT_GE(captured.report.captured_graphs, 4);
    expect_same_training(captured, on, launched, off);

    // And what goes on from a checkpoint of the other.
    std::filesystem::copy(off, again, std::filesystem::copy_options::recursive);
    const Checkpoint from = read_checkpoint(checkpoint_file(again, 13));
    const Outcome rest = run_on(settings, again, &from);
    EXPECT_GE(rest.report.captured_graphs, 2);
    expect_same_training(rest, again, launched, off);
    return launched;
}

}  // namespace spion
