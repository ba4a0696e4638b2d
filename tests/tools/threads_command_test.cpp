// Threads as a user meets them: what is taken by default, the setting, and a system that refuses
// some or all.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sched.h>

#include <sstream>
#include <string>

#include "tests/support/environment.h"
#include "tests/support/run_command.h"
#include "tests/support/scratch_folder.h"

namespace spion {
namespace {

// The threads that `spion doctor` names in its row of the CPU.
std::string threads_of_doctor(const std::string& options = "") {
    const std::string out = run_command("doctor " + options).out;
    const std::size_t row = out.find("\nCPU ");
    // The processor's name may have brackets too: Intel(R).
    const std::size_t open = out.rfind('(', out.find(" thread", row));
    return row == std::string::npos ? out : out.substr(open + 1, out.find(',', open) - open - 1);
}

// While it lives, this process and those that it starts may use one processor.
class OneProcessor {
  public:
    OneProcessor() {
        EXPECT_EQ(sched_getaffinity(0, sizeof(old_), &old_), 0);
        cpu_set_t one;
        CPU_ZERO(&one);
        for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++cpu) {
            if (CPU_ISSET(cpu, &old_)) CPU_SET(cpu, &one);
        }
        EXPECT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
    }
    ~OneProcessor() { sched_setaffinity(0, sizeof(old_), &old_); }

  private:
    cpu_set_t old_;
};

TEST(ThreadsCommand, TakesTheProcessorsItMayUse) {
    const Environment unset("SPION_THREADS", std::nullopt);
    const OneProcessor one;
    EXPECT_EQ(threads_of_doctor(), "1 thread");
}

TEST(ThreadsCommand, TheFlagWinsOverTheVariable) {
    const Environment set("SPION_THREADS", "5");
    EXPECT_EQ(threads_of_doctor(), "5 threads");
    EXPECT_EQ(threads_of_doctor("--threads 3"), "3 threads");
    EXPECT_EQ(threads_of_doctor("--threads 7 --threads 2"), "2 threads");
}

TEST(ThreadsCommand, RefusesWhatIsNoNumberOfThreads) {
    for (const char* wrong : {"0", "-1", "2x", "4097", "99999999999"}) {
        expect_refused(
            fmt::format("verify --pattern-random 1 --length 16 --block 16 --threads {}", wrong),
            {fmt::format("--threads is '{}', but it takes a whole number from 1 to 4096", wrong)});
    }
    const Environment set("SPION_THREADS", "many");
    expect_refused("verify --pattern-random 1 --length 16 --block 16 --head-dim 16 --device cpu",
                   {"SPION_THREADS is 'many', but it takes a whole number from 1 to 4096"});
}

// The cost model is told the same: the waves of work items, its fourth column, are fewer.
TEST(ThreadsCommand, TheCostModelKnowsThem) {
    const auto waves = [](int threads) {
        const ScratchFolder folder;
        const auto result = run_command(fmt::format(
            "compile --pattern-random 1 --length 1024 --block 32 --head-dim 32 --heads 8 --target "
            "host --emit ir --explain --threads {} -o {}",
            threads, folder.file("out")));
        EXPECT_EQ(result.exit_code, 0) << result.err;
        const std::string text = result.out + result.err;
        std::istringstream row(text.substr(text.find("\n* ") + 3));
        std::string tile, steps, resident, occupancy, count;
        row >> tile >> steps >> resident >> occupancy >> count;
        return std::stod(count);
    };
    EXPECT_EQ(waves(1), 8 * waves(8));
}

constexpr const char* kVerify =
    "verify --pattern-random 0.5 --length 128 --block 16 --head-dim 16 --heads 3 --device cpu "
    "--threads 4";

TEST(ThreadsCommand, GoesOnWithTheThreadsThatStart) {
    const ScratchFolder folder;
    const Environment cache("SPION_CACHE_DIR", folder.file("cache"));
    const Environment preload("LD_PRELOAD", SPION_LIMITED_THREADS);
    for (const int most : {0, 2}) {
        const Environment limit("SPION_TEST_THREADS", std::to_string(most));
        const auto result = run_command(kVerify);
        EXPECT_EQ(result.exit_code, 0) << result.err;
        EXPECT_NE(result.err.find(fmt::format(
                      "spion: 4 threads were wanted, but the system allows only {} (a limit on "
                      "processes or memory); going on with these\n",
                      most + 1)),
                  std::string::npos)
            << result.err;
    }
}

// What needs no thread starts none, and so never meets the limit.
TEST(ThreadsCommand, WhatComputesNothingStartsNoThread) {
    const Environment preload("LD_PRELOAD", SPION_LIMITED_THREADS);
    const Environment none("SPION_TEST_THREADS", "0");
    for (const char* command : {"--version", "--help", "train listops --help", "cache list"}) {
        const auto result = run_command(command);
        EXPECT_EQ(result.exit_code, 0) << command << result.err;
        EXPECT_EQ(result.err, "") << command;
    }
}

TEST(ThreadsCommand, TrainingWithoutAnyThreadSaysWhatToRaise) {
    const ScratchFolder folder;
    const Environment cache("SPION_CACHE_DIR", folder.file("cache"));
    const Environment preload("LD_PRELOAD", SPION_LIMITED_THREADS);
    const Environment none("SPION_TEST_THREADS", "0");
    const auto result = run_command(
        "train listops --device cpu --steps 2 --warmup 1 --dense --batch 1 --length 64 --layers 1 "
        "--heads 1 --head-dim 16 --d-model 16 --feed-forward 16 --train-samples 4 "
        "--validation-samples 1 --test-samples 1 --min-length 5 --max-length 60 --out " +
        folder.file("run"));
    EXPECT_EQ(result.exit_code, 2) << result.err;
    EXPECT_NE(result.err.find("spion: the system allows no further thread, which is needed for "
                              "preparing batches beside training: raise the limit on processes "
                              "(ulimit -u) or on memory (ulimit -v)\n"),
              std::string::npos)
        << result.err;
}

}  // namespace
}  // namespace spion
