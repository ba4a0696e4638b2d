// Steps that are captured and replayed, on the host: it captures nothing itself, but a device above it does.
#include "train/step_graphs.h"

#include <gtest/gtest.h>

#include "tests/support/capturing_device.h"
#include "tests/support/expect_error.h"
#include "tests/train/graph_runs.h"

namespace spion {
namespace {

Outcome run_capturing(const TrainSettings& settings, const std::filesystem::path& folder,
                      const Checkpoint* from) {
    test::CapturingDevice device(open_device(DeviceChoice::kCpu));
    const Outcome outcome = run(settings, folder, from, &device);
    EXPECT_EQ(device.captured(), outcome.report.captured_graphs);
    EXPECT_GE(device.replayed(), device.captured());
    return outcome;
}

TEST(StepGraphs, GiveTheBitsOfSingleLaunches) {
    for (const auto& [name, settings] : graph_runs(DeviceChoice::kCpu)) {
        SCOPED_TRACE(name);
        expect_graphs_change_nothing(settings, run_capturing);
    }
}

TEST(StepGraphs, LeaveOutStepsThatOverflow) {
    TrainSettings settings = tiny_settings();
    let_gradients_overflow(settings);
    settings.transition_step = 10;
    settings.on_divergence = OnDivergence::kContinue;
    const Outcome run = expect_graphs_change_nothing(settings, run_capturing);
    EXPECT_GT(run.report.skipped_steps, 0);
    EXPECT_LT(run.report.skipped_steps, settings.steps);
}

TEST(StepGraphs, AreCapturedTheSecondTimeAndForgotten) {
    test::CapturingDevice device(open_device(DeviceChoice::kCpu));
    const Buffer buffer(device, 1);
    StepGraphs graphs(device, true);
    int enqueued = 0;
    const auto enqueue = [&] {
        ++enqueued;
        device.fill(buffer.data(), static_cast<unsigned char>(enqueued), 1);
    };
    const auto expect = [&](const LaunchKind& kind, int calls, int value) {
        graphs.run(kind, enqueue);
        EXPECT_EQ(enqueued, calls);
        EXPECT_EQ(*buffer.as<unsigned char>(), value);
    };
    const LaunchKind one{.buffer = 0, .samples = 4}, other{.buffer = 1, .samples = 4};
    expect(one, 1, 1);
    expect(one, 2, 2);    // captured, and done
    expect(one, 2, 2);    // done again
    expect(other, 3, 3);  // a kind of its own
    expect(one, 3, 2);
    graphs.forget();
    expect(one, 4, 4);
    expect(one, 5, 5);
    device.workspace(1 << 20);
    expect(one, 6, 6);
    device.workspace(1 << 19);  // is there
    expect(one, 7, 7);
    expect(one, 7, 7);
    EXPECT_EQ(device.captured(), 3);
    EXPECT_EQ(graphs.captured(), 3);
}

TEST(StepGraphs, SayHowToDoWithoutThem) {
    test::CapturingDevice device(open_device(DeviceChoice::kCpu));
    StepGraphs graphs(device, true);
    graphs.run({}, [] {});
    expect_error<DeviceError>(
        [&] { graphs.run({}, [] { throw DeviceError("capturing launches: refused"); }); },
        "capturing launches: refused; `spion train --graph off` launches each kernel by itself");
}

TEST(StepGraphs, AreOffWhereNothingIsCaptured) {
    const auto host = open_device(DeviceChoice::kCpu);
    EXPECT_FALSE(StepGraphs(*host, true).on());
    test::CapturingDevice device(open_device(DeviceChoice::kCpu));
    StepGraphs graphs(device, false);
    EXPECT_FALSE(graphs.on());
    int enqueued = 0;
    for (int n = 0; n < 3; ++n) graphs.run({}, [&] { ++enqueued; });
    EXPECT_EQ(enqueued, 3);
}

}  // namespace
}  // namespace spion
