// Medians, and times taken from a device's marks.
#include "runtime/measure.h"

#include <gtest/gtest.h>

#include "tests/support/fake_device.h"

namespace spion {
namespace {

TEST(Median, IsTheMiddle) {
    EXPECT_EQ(median({}), 0.0);
    EXPECT_EQ(median({3.0}), 3.0);
    EXPECT_EQ(median({9.0, 1.0, 2.0}), 2.0);
    EXPECT_EQ(median({4.0, 1.0, 2.0, 100.0}), 3.0);
}

TEST(Measure, ACallTakesTheMeanOfAll) {
    test::FakeDevice device;
    device.now = 7;
    int called = 0;
    EXPECT_EQ(milliseconds_a_call(device, 4, [&] { device.now += ++called; }), 2.5);
    EXPECT_EQ(called, 4);
}

TEST(Measure, CallsFillTheTimeThatIsWanted) {
    EXPECT_EQ(calls_for(2.0, 0.5, 100), 4);
    EXPECT_EQ(calls_for(2.0, 0.3, 100), 7) << "rounded up";
    EXPECT_EQ(calls_for(2.0, 5.0, 100), 1) << "one at least";
    EXPECT_EQ(calls_for(2.0, 0.001, 100), 100) << "not more than allowed";
    EXPECT_EQ(calls_for(2.0, 0.0, 100), 1) << "a clock that stands still";
}

}  // namespace
}  // namespace spion
