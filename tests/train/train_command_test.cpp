// `spion train listops` as its user runs it: exit codes, messages, what it leaves behind.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/scratch_folder.h"
#include "tests/train/command_process.h"
#include "tests/train/files.h"

namespace spion {
namespace {

using test::Arguments;
using test::Result;
using test::run;
using test::start;
using test::wait_for;

// A run of seconds on the host; `more` comes last.
Arguments tiny(const std::string& out, const Arguments& more) {
    Arguments rest = {"--preset", "demo", "--batch", "4", "--test-samples", "5"};
    rest.insert(rest.end(), more.begin(), more.end());
    return test::tiny_listops(out, 1, rest);
}

TEST(TrainCommand, RefusesBadInputInOneSentenceAndLeavesNothing) {
    struct Case {
        Arguments arguments;
        const char* part;
    };
    const ScratchFolder folder;
    const std::string out = folder.file("run");
    const auto config = folder.write("bad.toml", "steps = 5\nstep = 6\n");
    const auto table = folder.write("table.toml", "[model]\nlayers = 2\n");
    const auto full = folder.file("full");
    std::filesystem::create_directories(full + "/something");
    const std::vector<Case> cases = {
        {{"--steps", "none"}, "--steps is 'none', but it takes a whole number"},
        {{"--block", "48"}, "48"},
        {{"--quantile", "1.5"}, "--quantile is '1.5'"},
        {{"--variant", "g"}, "cf"},
        {{"--device", "tpu"}, "tpu"},
        {{"--preset", "tiny"}, "--preset is 'tiny', but it takes paper or demo"},
        {{"--steps", "10", "--warmup", "11"}, "warmup is 11 steps of only 10"},
        {{"--steps", "10", "--warmup", "1", "--transition-step", "10"}, "transition-step is 10"},
        {{"--config", config}, "bad.toml:2:1: step is no setting"},
        {{"--config", table}, "table.toml:1:2: model is not of the form setting = value"},
        {{"--config", "/none.toml"},
         "the settings file /none.toml cannot be read (No such file or directory)"},
        {{"--data", folder.file("")}, "basic_train.tsv"},
        {{"--out", full}, "is not empty"},
        {{"--out", "/dev/null/run"}, "/dev/null is no folder"},
        {{"--step", "5"}, "--step"},
    };
    for (const Case& bad : cases) {
        Arguments arguments = {"train", "listops"};
        const bool own_out =
            std::find(bad.arguments.begin(), bad.arguments.end(), "--out") != bad.arguments.end();
        if (!own_out) arguments.insert(arguments.end(), {"--out", out});
        arguments.insert(arguments.end(), bad.arguments.begin(), bad.arguments.end());
        const Result result = run(folder, arguments);
        EXPECT_EQ(result.exit_code, 2) << bad.part << result.err;
        EXPECT_NE(result.err.find(bad.part), std::string::npos) << result.err;
        EXPECT_EQ(result.out, "") << bad.part;
        EXPECT_FALSE(std::filesystem::exists(out)) << bad.part;
    }
    const Result none = run(folder, {"train", "listops"});
    EXPECT_EQ(none.exit_code, 2);
    EXPECT_NE(none.err.find("--out"), std::string::npos) << none.err;
}

TEST(TrainCommand, ARunCanBeRepeatedFromItsConfigAndThenCompilesNothing) {
    const ScratchFolder folder;
    const std::string first = folder.file("first"), second = folder.file("second");
    // So short a run may end before its kernels of tier 1 are made.
    const Result one = run(folder, tiny(first, {"--steps", "8", "--warmup", "2",
                                                "--transition-step", "4", "--tiers", "0"}));
    ASSERT_EQ(one.exit_code, 0) << one.err;
    EXPECT_NE(one.out.find("turned sparse after step 4"), std::string::npos) << one.out;
    EXPECT_NE(one.out.find("test accuracy"), std::string::npos) << one.out;
    EXPECT_NE(one.out.find("peak device memory"), std::string::npos) << one.out;
    EXPECT_NE(one.err.find("layer 0: "), std::string::npos) << one.err;

    const Result two =
        run(folder, {"train", "listops", "--config", first + "/config.toml", "--out", second});
    ASSERT_EQ(two.exit_code, 0) << two.err;
    EXPECT_NE(two.out.find("compiled nothing: all "), std::string::npos) << two.out;
    EXPECT_EQ(read_file(second + "/config.toml"), read_file(first + "/config.toml"));
    EXPECT_EQ(read_file(second + "/patterns/layer0.bits"),
              read_file(first + "/patterns/layer0.bits"));
    const auto json = nlohmann::json::parse(read_file(second + "/summary.json"));
    EXPECT_EQ(json.at("steps"), 8);
    EXPECT_EQ(json.at("transition_step"), 4);
    EXPECT_EQ(json.at("kernels").at("compiled"), 0);
    EXPECT_EQ(json.at("test"),
              nlohmann::json::parse(read_file(first + "/summary.json")).at("test"));
}

TEST(TrainCommand, FlagsWinOverTheConfigAndTheConfigOverThePreset) {
    const ScratchFolder folder;
    const std::string out = folder.file("run");
    const auto config =
        folder.write("c.toml", "# mine\nsteps = 6\nseed = 9\nwarmup=1\ndense = true\n");
    const Result result = run(folder, tiny(out, {"--config", config, "--steps", "3"}));
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const std::string resolved = read_file(out + "/config.toml");
    EXPECT_NE(resolved.find("\nsteps = 3\n"), std::string::npos) << resolved;
    EXPECT_NE(resolved.find("\nseed = 9\n"), std::string::npos);
    EXPECT_NE(resolved.find("\ndense = true\n"), std::string::npos);
    EXPECT_NE(resolved.find("\nfilter = 31\n"), std::string::npos);
}

TEST(TrainCommand, CtrlCKeepsWhatWasMeasuredAndExits130) {
    const ScratchFolder folder;
    const std::string out = folder.file("run");
    const pid_t child = start(folder, tiny(out, {"--steps", "10000000", "--dense"}));
    const auto metrics = out + "/metrics.csv";
    const auto lines = [&] {
        const std::string text = read_file(metrics);
        return std::count(text.begin(), text.end(), '\n');
    };
    for (int i = 0; i < 600 && lines() < 20; ++i) {  // a minute at most, for a slow machine
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    ASSERT_EQ(::kill(child, SIGINT), 0);
    const Result result = wait_for(folder, child);
    EXPECT_EQ(result.exit_code, 130) << result.err;
    EXPECT_NE(result.out.find("interrupted after"), std::string::npos) << result.out;
    const std::string text = read_file(metrics);
    EXPECT_GE(lines(), 20);
    EXPECT_TRUE(text.ends_with('\n'));
    std::istringstream rows(text);
    for (std::string row; std::getline(rows, row);) {
        EXPECT_EQ(std::count(row.begin(), row.end(), ','), 9) << row;
    }
    const auto json = nlohmann::json::parse(read_file(out + "/summary.json"));
    EXPECT_EQ(json.at("interrupted"), true);
    EXPECT_TRUE(json.at("test").is_null());
    std::string last = std::to_string(json.at("steps").get<int>());
    last.append(",dense,train").insert(last.begin(), '\n');
    EXPECT_NE(text.find(last), std::string::npos) << "the last step is not in metrics.csv";
}

TEST(DataCommand, WritesWhatTrainReads) {
    const ScratchFolder folder;
    const std::string data = folder.file("data"), out = folder.file("run");
    const Result written = run(
        folder, {"data", "listops", "--out", data, "--train-samples", "30", "--validation-samples",
                 "4", "--test-samples", "4", "--min-length", "10", "--max-length", "60"});
    ASSERT_EQ(written.exit_code, 0) << written.err;
    const Result read =
        run(folder, tiny(out, {"--data", data, "--steps", "2", "--warmup", "1", "--dense"}));
    EXPECT_EQ(read.exit_code, 0) << read.err;
    EXPECT_NE(read.err.find("reading " + data), std::string::npos) << read.err;
    const Result again = run(folder, {"data", "listops", "--out", data});
    EXPECT_EQ(again.exit_code, 2);
    EXPECT_NE(again.err.find("is not empty"), std::string::npos) << again.err;
}

// The other process hears of it at once and does not wait for it.
TEST(TrainCommand, TellsOtherProcessesThatItsCacheCannotBeRead) {
    const ScratchFolder folder;
    const std::string missing = test_cache_root()->string() + ":" + folder.file("missing");
    std::vector<pid_t> children;
    for (const char* rank : {"0", "1"}) {
        test::Variables variables = {{"RANK", rank}, {"WORLD_SIZE", "2"}};
        if (rank[0] == '1') variables.emplace_back("SPION_CACHE_DIR", missing);
        children.push_back(start(folder, tiny(folder.file("run"), {}), variables, rank));
    }
    for (const char* rank : {"0", "1"}) {
        const Result result = wait_for(folder, children[rank[0] - '0'], rank);
        EXPECT_EQ(result.exit_code, 2);
        EXPECT_NE(result.err.find("to be read, which is no folder"), std::string::npos)
            << result.err;
    }
}

}  // namespace
}  // namespace spion
