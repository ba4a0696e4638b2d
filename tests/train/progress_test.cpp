#include "train/progress.h"

#include <gtest/gtest.h>

#include "tests/support/scratch_folder.h"
#include "tests/train/files.h"

namespace spion {
namespace {

const ProgressState kState = {.phase = Phase::kSparse,
                              .step = 50,
                              .total_steps = 200,
                              .loss = 2.125,
                              .accuracy = 0.25,
                              .step_ms = 40.0};

TEST(Progress, TextNamesPhaseStepLossAccuracyRateAndTimeLeft) {
    EXPECT_EQ(progress_text(kState, 8),
              "sparse [==>     ] 50/200  loss 2.125  accuracy 25.0 %  25.0 steps/s  ETA 0:06");
    EXPECT_EQ(progress_text({.step = 200, .total_steps = 200}, 2),
              "dense [==] 200/200  loss 0.000  accuracy 0.0 %");
    EXPECT_EQ(duration_text(59.6), "1:00");
    EXPECT_EQ(duration_text(3723), "1:02:03");
}

std::string drawn(bool terminal) {
    const ScratchFolder folder;
    const auto path = folder.file("out");
    std::FILE* stream = std::fopen(path.c_str(), "w");
    {
        Progress progress(stream, terminal);
        progress.update(kState);
        progress.update(kState);  // too soon
        progress.say("a line");
        progress.update(kState, true);
    }
    std::fclose(stream);
    return read_file(path);
}

TEST(Progress, RedrawsOneLineOnATerminal) {
    const std::string line = progress_text(kState, 20);
    EXPECT_EQ(drawn(true), line + "\r\033[Ka line\n" + line + "\n");
}

TEST(Progress, PrintsPlainLinesElsewhere) {
    const std::string line = progress_text(kState, 0) + "\n";
    EXPECT_EQ(drawn(false), line + "a line\n" + line);
}

}  // namespace
}  // namespace spion
