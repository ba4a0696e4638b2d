// Staging on a driver that is as late as a driver may be: copies take place when an event after
// them is waited for, and no sooner.
#include "runtime/cuda/staging.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "ir/error.h"
#include "tests/support/seed.h"

namespace spion {
namespace {

using namespace driver_abi;

// One stream; the driver's functions are plain pointers, so its state is global.
struct LateDriver {
    struct Copy {
        Pointer to;
        const void* from;
        std::size_t bytes;
    };
    std::deque<Copy> pending;
    std::int64_t enqueued = 0, done = 0;     // copies
    std::map<Event, std::int64_t> recorded;  // copies enqueued before the event
    std::set<void*> page_locked;
    std::set<Event> events;
    int waits = 0;
    int allocations_left = 100;
    Result copy_result = kSuccess;

    void advance_to(std::int64_t position) {
        for (; done < position; ++done) {
            const Copy& copy = pending.front();
            std::memcpy(reinterpret_cast<void*>(copy.to), copy.from, copy.bytes);
            pending.pop_front();
        }
    }
};
LateDriver late;

Result allocate_host(void** data, std::size_t bytes) {
    if (late.allocations_left-- == 0) return kErrorOutOfMemory;
    *data = std::malloc(bytes);
    late.page_locked.insert(*data);
    return kSuccess;
}
Result free_host(void* data) {
    late.page_locked.erase(data);
    std::free(data);
    return kSuccess;
}
Result create_event(Event* event, unsigned flags) {
    EXPECT_EQ(flags, kEventNoTiming);
    *event = reinterpret_cast<Event>(late.events.size() + 1);
    late.events.insert(*event);
    return kSuccess;
}
Result destroy_event(Event event) {
    late.events.erase(event);
    return kSuccess;
}
Result record_event(Event event, Stream) {
    late.recorded[event] = late.enqueued;
    return kSuccess;
}
Result wait_for_event(Event event) {
    ++late.waits;
    late.advance_to(late.recorded.at(event));
    return kSuccess;
}
Result copy_async(Pointer to, const void* from, std::size_t bytes, Stream) {
    if (late.copy_result != kSuccess) return late.copy_result;
    late.pending.push_back({to, from, bytes});
    ++late.enqueued;
    return kSuccess;
}

constexpr std::size_t kHalf = 4096;

class StagingTest : public ::testing::Test {
  protected:
    void SetUp() override {
        late = {};
        functions_.cuMemAllocHost_v2 = allocate_host;
        functions_.cuMemFreeHost = free_host;
        functions_.cuEventCreate = create_event;
        functions_.cuEventDestroy_v2 = destroy_event;
        functions_.cuEventRecord = record_event;
        functions_.cuEventSynchronize = wait_for_event;
        functions_.cuMemcpyHtoDAsync_v2 = copy_async;
        random_.seed(test::fresh_seed());
    }
    static Pointer address(std::vector<unsigned char>& target, std::size_t offset = 0) {
        return reinterpret_cast<Pointer>(target.data() + offset);
    }
    std::vector<unsigned char> random_bytes(std::size_t count) {
        std::vector<unsigned char> bytes(count);
        for (unsigned char& byte : bytes) byte = static_cast<unsigned char>(random_());
        return bytes;
    }

    Functions functions_;
    std::mt19937 random_;
};

TEST_F(StagingTest, EveryByteArrivesThoughTheSourceIsReusedAtOnce) {
    Staging staging(functions_, nullptr, kHalf);
    std::uniform_int_distribution<std::size_t> size(0, 3 * kHalf);
    std::vector<unsigned char> expected, target(200 * 3 * kHalf);
    for (int n = 0; n < 200; ++n) {
        std::vector<unsigned char> source =
            random_bytes(n % 3 == 0 ? size(random_) % 700 : size(random_));
        ASSERT_EQ(staging.copy_in(address(target, expected.size()), source.data(), source.size()),
                  kSuccess);
        expected.insert(expected.end(), source.begin(), source.end());
        std::fill(source.begin(), source.end(), 0);
    }
    EXPECT_GT(late.enqueued, late.done) << "nothing was left to run late: a weak test";
    late.advance_to(late.enqueued);
    target.resize(expected.size());
    EXPECT_EQ(target, expected);
}

TEST_F(StagingTest, TheHostWaitsOnlyForTheHalfThatItWritesAgain) {
    Staging staging(functions_, nullptr, kHalf);
    std::vector<unsigned char> source = random_bytes(kHalf), target(kHalf);
    const auto copy_half = [&] {
        ASSERT_EQ(staging.copy_in(address(target), source.data(), source.size()), kSuccess);
    };
    copy_half();
    copy_half();
    EXPECT_EQ(late.waits, 0);
    EXPECT_EQ(late.done, 0);
    copy_half();  // the first half again
    EXPECT_EQ(late.waits, 1);
    EXPECT_EQ(late.done, 1) << "waited for more than its own half's copies";
    copy_half();
    EXPECT_EQ(late.waits, 2);
    EXPECT_EQ(late.done, 2);
}

TEST_F(StagingTest, SmallCopiesShareAHalf) {
    Staging staging(functions_, nullptr, kHalf);
    std::vector<unsigned char> source = random_bytes(100), target(100);
    for (std::size_t n = 0; n < 2 * kHalf / 256; ++n) {
        ASSERT_EQ(staging.copy_in(address(target), source.data(), source.size()), kSuccess);
    }
    EXPECT_EQ(late.waits, 0);
    ASSERT_EQ(staging.copy_in(address(target), source.data(), source.size()), kSuccess);
    EXPECT_EQ(late.waits, 1);
    EXPECT_EQ(late.done, std::int64_t{kHalf / 256});
}

TEST_F(StagingTest, PassesOnTheDriversFailure) {
    Staging staging(functions_, nullptr, kHalf);
    std::vector<unsigned char> source = random_bytes(10), target(10);
    late.copy_result = kErrorNoBinaryForGpu;
    EXPECT_EQ(staging.copy_in(address(target), source.data(), source.size()), kErrorNoBinaryForGpu);
}

TEST_F(StagingTest, GivesBackWhatItTook) {
    {
        const Staging staging(functions_, nullptr, kHalf);
        EXPECT_EQ(late.page_locked.size(), 2U);
        EXPECT_EQ(late.events.size(), 2U);
    }
    EXPECT_TRUE(late.page_locked.empty());
    EXPECT_TRUE(late.events.empty());
    late.allocations_left = 1;  // the second half fails
    EXPECT_THROW(Staging(functions_, nullptr, kHalf), DeviceError);
    EXPECT_TRUE(late.page_locked.empty());
    EXPECT_TRUE(late.events.empty());
}

}  // namespace
}  // namespace spion
