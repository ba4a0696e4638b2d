// A run that is stopped, killed or out of time, and goes on; `spion evaluate` and `spion predict`.
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/scratch_folder.h"
#include "tests/train/command_process.h"
#include "tests/train/files.h"
#include "train/checkpoint.h"

namespace spion {
namespace {

namespace fs = std::filesystem;
using test::Arguments;
using test::Result;
using test::run;
using test::start;
using test::wait_for;

Arguments tiny(const std::string& out, int steps) {
    return test::tiny_listops(
        out, 2,
        {"--batch", "4", "--test-samples", "5", "--warmup", "2", "--steps", std::to_string(steps),
         "--transition-step", std::to_string(steps / 3), "--eval-every", "100",
         "--checkpoint-every", "100", "--quantile", "0.8"});
}

// metrics.csv without what depends on the clock.
std::string losses(const std::string& run) {
    std::istringstream metrics(read_file(run + "/metrics.csv"));
    std::string text, line;
    while (std::getline(metrics, line)) {
        std::size_t end = 0;
        for (int comma = 0; comma < 6; ++comma) end = line.find(',', end) + 1;
        text += line.substr(0, end) + '\n';
    }
    return text;
}

void expect_same_end(const std::string& run, const std::string& whole) {
    EXPECT_EQ(losses(run), losses(whole));
    const auto last = [](const std::string& folder) {
        return read_checkpoint(CheckpointFolder(folder + "/checkpoints").files().at(0));
    };
    EXPECT_EQ(last(run).values, last(whole).values);
    EXPECT_EQ(last(run).patterns, last(whole).patterns);
}

TEST(ResumeCommand, GoesOnAfterEverySignal) {
    const ScratchFolder folder;
    const std::string whole = folder.file("whole");
    ASSERT_EQ(run(folder, tiny(whole, 1500)).exit_code, 0) << read_file(folder.file("err"));
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
        const std::string part = folder.file(fmt::format("part{}", signal));
        const pid_t child = start(folder, tiny(part, 1500));
        for (int i = 0; i < 12000 && !fs::exists(part + "/checkpoints"); ++i) {  // a minute at most
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
        ::kill(child, signal);
        const Result stopped = wait_for(folder, child);
        ASSERT_EQ(stopped.exit_code, 128 + signal) << stopped.err;
        EXPECT_NE(stopped.out.find("go on with: spion train listops --resume " + part),
                  std::string::npos)
            << stopped.out;
        const Result rest = run(folder, {"train", "listops", "--resume", part});
        ASSERT_EQ(rest.exit_code, 0) << rest.err;
        EXPECT_NE(rest.err.find("going on after step "), std::string::npos) << rest.err;
        expect_same_end(part, whole);
    }
}

// Killed at random moments, before the first checkpoint too, until it is done.
TEST(ResumeCommand, LosesAtMostAnIntervalWhenKilled) {
    const ScratchFolder folder;
    const std::string whole = folder.file("whole"), part = folder.file("part");
    ASSERT_EQ(run(folder, tiny(whole, 1500)).exit_code, 0) << read_file(folder.file("err"));
    std::mt19937_64 random(std::random_device{}());
    int kills = 0;
    std::int64_t reached = 0;
    Arguments arguments = tiny(part, 1500);
    for (; kills < 10; ++kills) {
        const pid_t child = start(folder, arguments);
        std::this_thread::sleep_for(std::chrono::milliseconds(30 + random() % 300));
        ::kill(child, SIGKILL);
        const Result killed = wait_for(folder, child);
        if (killed.exit_code == 0) break;  // it was done before
        ASSERT_EQ(killed.exit_code, -SIGKILL) << killed.err;
        if (fs::exists(part + "/config.toml")) arguments = {"train", "listops", "--resume", part};
        const auto files = CheckpointFolder(part + "/checkpoints").files();
        const std::int64_t now = files.empty() ? 0 : read_checkpoint(files[0]).state.step;
        EXPECT_GE(now, reached) << "a checkpoint was lost";
        reached = now;
    }
    const Result rest = run(folder, arguments);
    ASSERT_EQ(rest.exit_code, 0) << rest.err;
    expect_same_end(part, whole);
    for (const auto& entry : fs::directory_iterator(part + "/checkpoints")) {
        EXPECT_EQ(entry.path().filename().string().find("unfinished"), std::string::npos) << entry;
    }
}

TEST(ResumeCommand, StopsAfterSoManyMinutes) {
    const ScratchFolder folder;
    const std::string part = folder.file("part");
    Arguments arguments = tiny(part, 400000);
    arguments.insert(arguments.end(), {"--minutes", "0.01"});
    const Result stopped = run(folder, arguments);
    ASSERT_EQ(stopped.exit_code, 0) << stopped.err;
    EXPECT_NE(stopped.out.find("out of time after "), std::string::npos) << stopped.out;
    EXPECT_EQ(nlohmann::json::parse(read_file(part + "/summary.json")).at("out_of_time"), true);
}

TEST(ResumeCommand, RefusesInASentence) {
    const ScratchFolder folder;
    const std::string part = folder.file("part");
    ASSERT_EQ(run(folder, tiny(part, 12)).exit_code, 0);
    const std::string last = part + "/checkpoints/step-00000012.safetensors";
    const std::vector<std::pair<Arguments, std::string>> cases = {
        {{"train", "listops", "--resume", folder.file("none")}, "is no folder of a run"},
        {{"train", "image", "--resume", part}, "is a run of listops: use `spion train listops"},
        {{"train", "listops", "--resume", part, "--lr", "1"}, "--lr cannot be changed by --resume"},
        {{"train", "listops", "--resume", part, "--preset", "demo"}, "leave --config and --preset"},
        {{"train", "listops"}, "--out"},
        {{"evaluate", part + "/config.toml"}, "config.toml is no checkpoint"},
        {{"evaluate", folder.file("")}, "has no checkpoints/best.safetensors"},
        {{"evaluate", last, "--split", "all"}, "--split is 'all', but it takes test"},
        {{"predict", last, folder.file("none.tsv")}, "none.tsv"},
    };
    for (const auto& [arguments, text] : cases) {
        const Result refused = run(folder, arguments);
        EXPECT_EQ(refused.exit_code, 2) << text;
        EXPECT_NE(refused.err.find(text), std::string::npos) << refused.err;
    }
}

// What is said of the test split is what training said of it.
TEST(EvaluateCommand, RepeatsWhatTrainingFound) {
    const ScratchFolder folder;
    const std::string part = folder.file("part");
    ASSERT_EQ(run(folder, tiny(part, 12)).exit_code, 0);
    const auto summary = nlohmann::json::parse(read_file(part + "/summary.json"));
    const Result evaluated =
        run(folder, {"evaluate", part + "/checkpoints/step-00000012.safetensors"});
    ASSERT_EQ(evaluated.exit_code, 0) << evaluated.err;
    EXPECT_EQ(evaluated.out,
              fmt::format("step 12: test loss {:.4f}, accuracy {:.2f} % of 5 samples\n",
                          summary.at("test").at("loss").get<double>(),
                          100 * summary.at("test").at("accuracy").get<double>()));
}

}  // namespace
}  // namespace spion
