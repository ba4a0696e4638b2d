// CopyAhead on a driver that only writes down what has to come before what.
#include "runtime/cuda/copy_ahead.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <vector>

#include "ir/error.h"

namespace spion {
namespace {

using namespace driver_abi;

// Operations in the order of their calls; the driver's functions are plain pointers, so its state is global.
struct OrderDriver {
    std::vector<std::vector<std::size_t>> after;  // of an operation, those that it waits for
    std::map<Stream, std::size_t> last;           // operation of a stream
    std::map<Event, std::size_t> recorded;
    std::vector<std::size_t> copies;
    std::size_t streams = 0, events = 0;
    Result wait_result = kSuccess;

    std::size_t add(Stream stream) {
        after.emplace_back();
        if (last.contains(stream)) after.back().push_back(last[stream]);
        last[stream] = after.size() - 1;
        return after.size() - 1;
    }
    bool precedes(std::size_t first, std::size_t second) const {
        if (first == second) return true;
        for (const std::size_t before : after[second]) {
            if (precedes(first, before)) return true;
        }
        return false;
    }
};
OrderDriver driver_order;

Result create_stream(Stream* stream, unsigned) {
    *stream = reinterpret_cast<Stream>(100 + ++driver_order.streams);
    return kSuccess;
}
Result destroy_stream(Stream) {
    --driver_order.streams;
    return kSuccess;
}
Result create_event(Event* event, unsigned) {
    *event = reinterpret_cast<Event>(++driver_order.events);
    return kSuccess;
}
Result destroy_event(Event) {
    --driver_order.events;
    return kSuccess;
}
Result record(Event event, Stream stream) {
    driver_order.recorded[event] = driver_order.add(stream);
    return kSuccess;
}
Result wait(Stream stream, Event event, unsigned) {
    if (driver_order.wait_result != kSuccess) return driver_order.wait_result;
    driver_order.after[driver_order.add(stream)].push_back(driver_order.recorded.at(event));
    return kSuccess;
}
Result copy(Pointer, const void*, std::size_t, Stream stream) {
    driver_order.copies.push_back(driver_order.add(stream));
    return kSuccess;
}
Result allocate_host(void** data, std::size_t bytes) {
    *data = std::malloc(bytes);
    return kSuccess;
}
Result free_host(void* data) {
    std::free(data);
    return kSuccess;
}
Result synchronize(Event) {
    return kSuccess;
}

class CopyAheadTest : public ::testing::Test {
  protected:
    void SetUp() override {
        driver_order = {};
        functions_.cuStreamCreate = create_stream;
        functions_.cuStreamDestroy_v2 = destroy_stream;
        functions_.cuStreamWaitEvent = wait;
        functions_.cuEventCreate = create_event;
        functions_.cuEventDestroy_v2 = destroy_event;
        functions_.cuEventRecord = record;
        functions_.cuEventSynchronize = synchronize;
        functions_.cuMemAllocHost_v2 = allocate_host;
        functions_.cuMemFreeHost = free_host;
        functions_.cuMemcpyHtoDAsync_v2 = copy;
    }
    Functions functions_;
    Stream main_ = reinterpret_cast<Stream>(1);
};

TEST_F(CopyAheadTest, ACopyGoesBesideTheWorkOfTheCopyBeforeAndOfNoOther) {
    CopyAhead ahead(functions_, main_);
    const std::vector<unsigned char> source(100);
    std::vector<std::size_t> work = {
        driver_order.add(main_)};  // before the first copy, then after each
    for (int n = 0; n < 6; ++n) {
        ASSERT_EQ(ahead.copy_in(0, source.data(), source.size()), kSuccess);
        work.push_back(driver_order.add(main_));
    }
    const std::vector<std::size_t>& copies = driver_order.copies;
    ASSERT_EQ(copies.size(), 6U);
    EXPECT_TRUE(driver_order.precedes(work[0], copies[0]));
    for (std::size_t n = 0; n < copies.size(); ++n) {
        EXPECT_TRUE(driver_order.precedes(copies[n], work[n + 1])) << n;
        if (n > 0) {
            EXPECT_FALSE(driver_order.precedes(work[n], copies[n])) << n;
            EXPECT_TRUE(driver_order.precedes(work[n - 1], copies[n])) << n;
        }
    }
}

TEST_F(CopyAheadTest, PassesOnTheDriversFailure) {
    CopyAhead ahead(functions_, main_);
    const unsigned char source = 0;
    driver_order.wait_result = kErrorNoBinaryForGpu;
    EXPECT_EQ(ahead.copy_in(0, &source, 1), kErrorNoBinaryForGpu);
}

TEST_F(CopyAheadTest, GivesBackWhatItTook) {
    {
        const CopyAhead ahead(functions_, main_);
        EXPECT_EQ(driver_order.streams, 1U);
        EXPECT_EQ(driver_order.events, 5U);
    }
    EXPECT_EQ(driver_order.streams, 0U);
    EXPECT_EQ(driver_order.events, 0U);
}

}  // namespace
}  // namespace spion
