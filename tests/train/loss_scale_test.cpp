// Dynamic loss scaling, on the host: in fp32 a power of two changes nothing, and a scale near fp32's
// largest number overflows as fp16's gradients do.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "ir/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/scratch_folder.h"
#include "tests/train/tiny_run.h"

namespace spion {
namespace {

TEST(LossScale, OfAPowerOfTwoChangesNoBit) {
    const ScratchFolder folder;
    TrainSettings settings = tiny_settings();
    settings.transition_step = 10;
    const Outcome plain = run(settings, folder.file("plain"));
    settings.loss_scale = 1024;
    const Outcome scaled = run(settings, folder.file("scaled"));
    EXPECT_EQ(scaled.summary_of_losses(), plain.summary_of_losses());
    EXPECT_EQ(scaled.report.skipped_steps, 0);
    EXPECT_EQ(scaled.report.loss_scale, 1024);
    EXPECT_EQ(plain.report.loss_scale, 0);
    settings.accumulate = 2;
    settings.batch = 2;
    const Outcome parts = run(settings, folder.file("parts"));
    settings.loss_scale = 0;
    EXPECT_EQ(run(settings, folder.file("whole")).summary_of_losses(), parts.summary_of_losses());
}

TEST(LossScale, IsHalvedByAnOverflowWhoseStepIsLeftOut) {
    const ScratchFolder folder;
    TrainSettings settings = tiny_settings();
    settings.dense = true;
    let_gradients_overflow(settings);
    settings.checkpoint_every = 1;
    settings.keep_checkpoints = 100;
    const Outcome outcome = run(settings, folder.file("run"));
    const std::int64_t skipped = outcome.report.skipped_steps;
    ASSERT_GT(skipped, 0);
    ASSERT_LT(skipped, settings.steps);
    EXPECT_EQ(outcome.report.not_finite_gradients, 0) << "nothing was learnt from those";
    EXPECT_FALSE(outcome.report.divergence);
    const auto checkpoint = [&](std::int64_t step) {
        return read_checkpoint(
            folder.file(fmt::format("run/checkpoints/step-{:08}.safetensors", step)));
    };
    std::int64_t left_out = 0;
    for (std::int64_t step = 2; step <= settings.steps; ++step) {
        SCOPED_TRACE(step);
        const Checkpoint before = checkpoint(step - 1), after = checkpoint(step);
        ASSERT_TRUE(before.state.loss_scale && after.state.loss_scale);
        const bool skip = after.state.loss_scale->skipped > before.state.loss_scale->skipped;
        EXPECT_EQ(after.state.loss_scale->scale, before.state.loss_scale->scale / (skip ? 2 : 1));
        EXPECT_EQ(after.values == before.values, skip);
        EXPECT_EQ(after.first_moment == before.first_moment, skip);
        EXPECT_EQ(after.second_moment == before.second_moment, skip);
        left_out += skip ? 1 : 0;
    }
    EXPECT_EQ(left_out, skipped);
}

TEST(LossScale, GrowsAfterGoodSteps) {
    const ScratchFolder folder;
    TrainSettings settings = tiny_settings();
    settings.dense = true;
    settings.loss_scale = 8;
    settings.loss_scale_growth = 5;
    const Outcome outcome = run(settings, folder.file("run"));
    EXPECT_EQ(outcome.report.skipped_steps, 0);
    EXPECT_EQ(outcome.report.loss_scale, 128) << "24 steps, doubled after 5, 10, 15 and 20";
    const Checkpoint last =
        read_checkpoint(folder.file("run/checkpoints/step-00000024.safetensors"));
    EXPECT_EQ(last.state.loss_scale->good_steps, 4);
    settings.loss_scale = 0;
    EXPECT_EQ(run(settings, folder.file("plain")).summary_of_losses(), outcome.summary_of_losses());
}

TEST(LossScale, LeavesALossThatIsNoNumberToTheRuleOfDivergence) {
    const ScratchFolder folder;
    TrainSettings settings = tiny_settings();
    settings.dense = true;
    settings.loss_scale = 1024;
    settings.learning_rate = 1e30;
    const Outcome outcome = run(settings, folder.file("run"));
    ASSERT_TRUE(outcome.report.divergence);
    EXPECT_TRUE(outcome.report.divergence->ended_training);
}

TEST(LossScale, RefusesWhatCannotBe) {
    TrainSettings settings = tiny_settings();
    settings.loss_scale = 0.5;
    expect_error<UserError>([&] { check(settings); },
                            "loss-scale is 0.5, but a scale is 1 or more");
    settings.loss_scale = 0;
    EXPECT_EQ(first_loss_scale(settings), 0);
    settings.precision = Precision::kFp16;
    EXPECT_EQ(first_loss_scale(settings), 65536);
    const ScratchFolder folder;
    expect_error<UserError>([&] { run(settings, folder.file("run")); },
                            "precision is fp16, but the host trains in fp32");
}

}  // namespace
}  // namespace spion
