#include "train/progress.h"

#include <gtest/gtest.h>

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

// A line is as wide as it may be and says as much as that holds.
TEST(Progress, TextFitsTheColumns) {
    const std::string whole = progress_text(kState, 20);
    EXPECT_EQ(fitted_progress_text(kState, static_cast<int>(whole.size())), whole);
    EXPECT_EQ(fitted_progress_text(kState, static_cast<int>(whole.size()) - 1),
              progress_text(kState, 10));
    EXPECT_EQ(fitted_progress_text(kState, 39), "sparse 50/200  loss 2.125");
    EXPECT_EQ(fitted_progress_text(kState, 20), "sparse 50/200");
    EXPECT_EQ(fitted_progress_text(kState, 5), "spars");
    EXPECT_EQ(fitted_progress_text(kState, 0), "");
    EXPECT_EQ(fitted_progress_text(kState, -1), "");
    for (int columns = 0; columns < 100; ++columns) {
        EXPECT_LE(fitted_progress_text(kState, columns).size(), static_cast<std::size_t>(columns));
    }
}

std::string drawn(const Terminal& terminal) {
    std::string text;
    {
        Progress progress([&](std::string_view more) { text += more; }, [&] { return terminal; });
        progress.update(kState);
        progress.update(kState);  // too soon
        progress.say("a line");
        progress.update(kState, true);
    }
    return text;
}

TEST(Progress, RedrawsOneLineOnATerminal) {
    const std::string line = progress_text(kState, 20);
    EXPECT_EQ(drawn({.columns = 200, .redraws = true}), line + "\r\033[Ka line\n" + line + "\n");
    const std::string narrow = fitted_progress_text(kState, 39);  // the last column stays free
    EXPECT_EQ(drawn({.columns = 40, .redraws = true}), narrow + "\r\033[Ka line\n" + narrow + "\n");
}

TEST(Progress, PrintsPlainLinesElsewhere) {
    const std::string line = progress_text(kState, 0) + "\n";
    EXPECT_EQ(drawn({}), line + "a line\n" + line);
    const std::string narrow = fitted_progress_text(kState, 39) + "\n";
    EXPECT_EQ(drawn({.columns = 40, .redraws = false}), narrow + "a line\n" + narrow);
}

}  // namespace
}  // namespace spion
