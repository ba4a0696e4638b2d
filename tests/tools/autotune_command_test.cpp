// --autotune as users give it, on the host for real: measured once, kept, used again.
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "compiler/tune/tuning.h"
#include "tests/support/environment.h"
#include "tests/support/run_command.h"

namespace spion {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class AutotuneCommand : public testing::Test {
  protected:
    void expect_done(const std::string& arguments) const {
        const CommandResult result = run_command(arguments);
        EXPECT_EQ(result.exit_code, 0) << result.err;
        EXPECT_EQ(result.err, "");
    }
    // Tunings by key.
    std::map<std::string, TuningEntry> tunings() const {
        std::map<std::string, TuningEntry> found;
        for (const TuningEntry& entry : list_tunings(root_)) {
            EXPECT_EQ(entry.problem, "");
            found.emplace(entry.key, entry);
        }
        return found;
    }

    ScratchFolder scratch_;
    fs::path root_ = scratch_.path() / "cache";
    Environment named_{"SPION_CACHE_DIR", root_.string()};
};

TEST_F(AutotuneCommand, BenchMeasuresOnceAndKeepsIt) {
    const std::string bench =
        "bench attention --device cpu --pattern-random 0.4 --length 128 --block 32 --heads 1 "
        "--head-dim 16 --batch 2 --repeat 1";
    expect_done(bench);
    EXPECT_TRUE(tunings().empty()) << "nobody asked";
    expect_done(bench + " --autotune");
    const auto first = tunings();
    ASSERT_EQ(first.size(), 6U);  // three kernels of the pattern, three of the dense one
    for (const auto& [key, entry] : first) {
        EXPECT_GT(entry.tuning.milliseconds, 0);
        EXPECT_EQ(entry.tuning.batch, 2);
        EXPECT_EQ(entry.tuning.kernel.rfind("attention_", 0), 0U) << entry.tuning.kernel;
        // A mark that a second measurement would wipe out.
        Tuning marked = entry.tuning;
        marked.milliseconds = 12345;
        write_tuning(entry.file, key, marked);
    }
    expect_done(bench + " --autotune");
    for (const auto& [key, entry] : tunings()) {
        EXPECT_EQ(entry.tuning.milliseconds, 12345) << key;
        EXPECT_EQ(entry.tuning.shape, first.at(key).tuning.shape);
    }
    EXPECT_EQ(tunings().size(), 6U);
    expect_done(bench + " --autotune --pattern-seed 7");
    EXPECT_EQ(tunings().size(), 9U) << "another pattern is another problem, dense is the same";
    expect_done("cache verify");
    expect_done("cache clear");
    EXPECT_TRUE(tunings().empty());
}

TEST_F(AutotuneCommand, TrainTakesWhatItMeasures) {
    const std::string out = scratch_.file("run");
    const CommandResult result = run_command(
        "train listops --device cpu --preset demo --autotune --length 64 --min-length 10 "
        "--max-length 60 --layers 1 --heads 1 --head-dim 16 --d-model 16 --feed-forward 16 "
        "--batch 2 --block 16 --train-samples 16 --validation-samples 2 --test-samples 2 --steps 4 "
        "--warmup 1 --eval-every 2 --transition-step 2 --out " +
        out);
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const auto found = tunings();
    EXPECT_GE(found.size(), 6U);  // dense and sparse, three kernels each
    for (const auto& [key, entry] : found) {
        EXPECT_EQ(entry.tuning.batch, 2) << key;
    }
}

}  // namespace
}  // namespace spion
