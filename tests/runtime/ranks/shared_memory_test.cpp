// Sums of processes without GPUs, here as threads, against sums in the order of the ranks.
#include "runtime/ranks/shared_memory.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <random>
#include <thread>

#include "runtime/device.h"
#include "runtime/ranks/open.h"
#include "tests/support/expect_error.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/seed.h"

namespace spion {
namespace {

// work(ranks) in `count` threads that are connected.
void run_ranks(int count, const std::function<void(Communicator&)>& work) {
    const ScratchFolder folder;
    std::vector<std::thread> threads;
    for (int index = 0; index < count; ++index) {
        threads.emplace_back([&, index] {
            const auto device = open_device(DeviceChoice::kCpu);
            Job job({.index = index, .count = count, .local = index, .variables = "a test"},
                    folder.path() / "ranks");
            work(*job.connect(*device));
        });
    }
    for (std::thread& thread : threads) thread.join();
}

std::vector<float> random_values(std::uint64_t seed, int rank, std::size_t count) {
    std::mt19937_64 random(seed + static_cast<std::uint64_t>(rank));
    std::normal_distribution<float> normal;
    std::vector<float> values(count);
    for (float& value : values) value = normal(random);
    return values;
}

TEST(SharedMemory, AddsUpInTheOrderOfTheRanks) {
    const std::uint64_t seed = test::fresh_seed();
    for (const int count : {2, 3, 5}) {
        // The last one does not fit into what a rank gives at once.
        for (const std::size_t size : {std::size_t{1}, std::size_t{1000}, std::size_t{150001}}) {
            std::vector<float> expected = random_values(seed, 0, size);
            for (int rank = 1; rank < count; ++rank) {
                const auto its = random_values(seed, rank, size);
                for (std::size_t i = 0; i < size; ++i) expected[i] += its[i];
            }
            run_ranks(count, [&](Communicator& ranks) {
                auto values = random_values(seed, ranks.rank().index, size);
                ranks.begin_sum(values.data(), static_cast<std::int64_t>(size));
                ranks.finish_sums();
                EXPECT_EQ(values, expected) << count << " ranks, " << size << " values";
            });
        }
    }
}

TEST(SharedMemory, GathersWhatEachGives) {
    run_ranks(3, [](Communicator& ranks) {
        const auto text = [](int rank) {
            return std::string(static_cast<std::size_t>(rank) * 200000,
                               static_cast<char>('a' + rank));
        };
        ranks.meet();
        const auto all = ranks.gather(text(ranks.rank().index));
        EXPECT_EQ(all, (std::vector{text(0), text(1), text(2)}));
        EXPECT_EQ(ranks.gather(""), std::vector<std::string>(3));
    });
}

TEST(SharedMemory, AddsUpDoubles) {
    const std::uint64_t seed = test::fresh_seed();
    constexpr std::size_t kSize = 100003;
    const auto doubles = [&](int rank) {
        const auto values = random_values(seed, rank, kSize);
        return std::vector<double>(values.begin(), values.end());
    };
    std::vector<double> expected = doubles(0);
    const std::vector<double> second = doubles(1);
    for (std::size_t i = 0; i < kSize; ++i) expected[i] += second[i];
    run_ranks(2, [&](Communicator& ranks) {
        EXPECT_EQ(ranks.sum(doubles(ranks.rank().index)), expected);
        EXPECT_TRUE(ranks.sum({}).empty());
    });
}

TEST(SharedMemory, LetsTheFirstOfAMachineGoAhead) {
    std::atomic<int> first_done = 0, late = 0;
    run_ranks(3, [&](Communicator& ranks) {
        const FirstOfMachine first(ranks);
        if (ranks.rank().local == 0) {
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
            first_done = 1;
        } else if (first_done == 0) {
            ++late;
        }
    });
    EXPECT_EQ(first_done, 1);
    EXPECT_EQ(late, 0);
}

TEST(SharedMemory, OfAProcessAloneIsWhatItHas) {
    Alone alone;
    float value = 3;
    alone.begin_sum(&value, 1);
    alone.finish_sums();
    EXPECT_EQ(value, 3);
    EXPECT_EQ(alone.gather("x"), std::vector<std::string>{"x"});
    EXPECT_EQ(alone.sum(std::vector<double>{1, 2}), (std::vector<double>{1, 2}));
}

}  // namespace
}  // namespace spion
