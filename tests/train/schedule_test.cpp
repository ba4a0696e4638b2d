#include "train/schedule.h"

#include <gtest/gtest.h>

#include "ir/error.h"

namespace spion {
namespace {

// By hand, for a peak of 1 over 100 steps with 10 of warm-up: the peak lies at step 9, the start is
// 1/25, the end 1/25/1e4 = 4e-6 at step 99.
TEST(OneCycleSchedule, FollowsTheTwoLines) {
    const OneCycleSchedule schedule(1.0, 100, 0.1);
    EXPECT_DOUBLE_EQ(schedule.at(0), 0.04);
    EXPECT_DOUBLE_EQ(schedule.at(3), 0.04 + 0.96 / 3);
    EXPECT_DOUBLE_EQ(schedule.at(9), 1.0);
    EXPECT_DOUBLE_EQ(schedule.at(54), (1.0 + 4e-6) / 2);
    EXPECT_DOUBLE_EQ(schedule.at(99), 4e-6);
    EXPECT_DOUBLE_EQ(schedule.at(1000), 4e-6);
}

// The values that PyTorch's OneCycleLR(max_lr=7e-4, total_steps=30000, pct_start=1000/30000,
// anneal_strategy="linear") has by its definition: peak at step 999, last step 29999.
TEST(OneCycleSchedule, HasThePapersValues) {
    const OneCycleSchedule schedule(7e-4, 30000, 1000.0 / 30000.0);
    EXPECT_NEAR(schedule.at(0), 2.8e-5, 1e-12);
    EXPECT_NEAR(schedule.at(999), 7e-4, 1e-12);
    EXPECT_NEAR(schedule.at(500), 2.8e-5 + (7e-4 - 2.8e-5) * 500 / 999, 1e-12);
    EXPECT_NEAR(schedule.at(15499), (7e-4 + 2.8e-9) / 2, 1e-12);
    EXPECT_NEAR(schedule.at(29999), 2.8e-9, 1e-15);
}

TEST(OneCycleSchedule, AcceptsNoWarmUpNothingElseAndASingleStep) {
    const OneCycleSchedule falling(1.0, 10, 0.0);  // the peak lies at step -1
    EXPECT_NEAR(falling.at(0), 1.0 - (1.0 - 4e-6) / 10, 1e-12);
    EXPECT_NEAR(falling.at(9), 4e-6, 1e-12);
    const OneCycleSchedule rising(1.0, 10, 1.0);
    EXPECT_DOUBLE_EQ(rising.at(0), 0.04);
    EXPECT_DOUBLE_EQ(rising.at(9), 1.0);
    EXPECT_DOUBLE_EQ(OneCycleSchedule(1.0, 1, 1.0).at(0), 1.0);
}

TEST(OneCycleSchedule, RefusesWhatItCannotDo) {
    EXPECT_THROW(OneCycleSchedule(1.0, 0, 0.1), UserError);
    EXPECT_THROW(OneCycleSchedule(1.0, 10, 1.1), UserError);
    EXPECT_THROW(OneCycleSchedule(1.0, 10, -0.1), UserError);
}

}  // namespace
}  // namespace spion
