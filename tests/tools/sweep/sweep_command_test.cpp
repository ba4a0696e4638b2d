// `spion sweep` from its file to its page, on the host.
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "tests/support/run_command.h"
#include "tests/support/scratch_folder.h"
#include "tests/train/command_process.h"
#include "tests/train/files.h"

namespace spion {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSettings = R"(
[settings]
device = "cpu"
length = 64
min-length = 10
max-length = 60
layers = 2
heads = 1
head-dim = 16
d-model = 16
feed-forward = 16
batch = 4
block = 16
train-samples = 50
validation-samples = 5
test-samples = 20
warmup = 2
quantile = 0.8
eval-every = 20
)";

test::Arguments sweep_of(const ScratchFolder& folder) {
    return {"sweep", folder.file("sweep.toml"), "--out", folder.file("sweep"), "--jobs", "2"};
}

int lines_with(const std::string& text, const std::string& part) {
    int found = 0;
    for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
        ++found;
    }
    return found;
}

TEST(SweepCommand, RunsAllAndTakesTheDensityOfCf) {
    const ScratchFolder folder;
    folder.write("sweep.toml", std::string("arms = ['window', 'dense', 'cf']\nseeds = [0, 1]\n") +
                                   kSettings + "steps = 60\ntransition-step = 20\n");
    const test::Result done = test::run(folder, sweep_of(folder));
    ASSERT_EQ(done.exit_code, 0) << done.err;
    const std::string runs = read_file(folder.file("sweep/runs.csv"));
    EXPECT_EQ(lines_with(runs, ",done,60,"), 6) << runs;
    EXPECT_EQ(lines_with(runs, ",done,60,,"), 0) << "a best checkpoint was not evaluated";
    EXPECT_NE(done.out.find("| listops | window |  | 2 |"), std::string::npos) << done.out;
    EXPECT_EQ(lines_with(read_file(folder.file("sweep/table.csv")), ",2,2,"), 3);
    // The mean of both cf runs, as the file of the window's run has it.
    std::vector<double> densities;
    for (const char* seed : {"0", "1"}) {
        const std::string config =
            read_file(folder.file("sweep/runs/listops-window-seed") + seed + "/config.toml");
        const std::size_t at = config.find("\ndensity = ");
        ASSERT_NE(at, std::string::npos) << config;
        densities.push_back(std::stod(config.substr(at + 11)));
    }
    EXPECT_EQ(densities[0], densities[1]);
    double sum = 0;
    for (const char* name : {"\nlistops-cf-seed0,", "\nlistops-cf-seed1,"}) {
        std::string row = runs.substr(runs.find(name) + 1);
        for (int comma = 0; comma < 10; ++comma) row = row.substr(row.find(',') + 1);
        sum += std::stod(row);
    }
    EXPECT_NEAR(densities[0], sum / 2, 1e-5);
    // Nothing is run again.
    const test::Result again = test::run(folder, sweep_of(folder));
    EXPECT_EQ(again.exit_code, 0);
    EXPECT_EQ(again.err, "");
    EXPECT_EQ(again.out, done.out);
    // Another file is another sweep.
    folder.write("sweep.toml", "seeds = [7]\n");
    const test::Result other = test::run(folder, sweep_of(folder));
    EXPECT_EQ(other.exit_code, 2);
    EXPECT_NE(other.err.find("was begun with another file"), std::string::npos) << other.err;
}

TEST(SweepCommand, GoesOnAfterASignal) {
    const ScratchFolder folder;
    folder.write("sweep.toml", std::string("arms = ['dense']\nseeds = [0, 1, 2]\n") + kSettings +
                                   "steps = 3000\ncheckpoint-every = 100\n");
    const pid_t child = test::start(folder, sweep_of(folder));
    const std::string first = folder.file("sweep/runs/listops-dense-seed0/checkpoints");
    for (int i = 0; i < 12000 && !fs::exists(first); ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    ::kill(child, SIGINT);
    const test::Result stopped = test::wait_for(folder, child);
    EXPECT_EQ(stopped.exit_code, 130) << stopped.err;
    EXPECT_NE(stopped.err.find("listops-dense-seed0 stops after step"), std::string::npos)
        << stopped.err;
    EXPECT_TRUE(fs::exists(folder.file("sweep/page.html")));
    const test::Result rest = test::run(folder, sweep_of(folder));
    EXPECT_EQ(rest.exit_code, 0) << rest.err;
    EXPECT_EQ(lines_with(read_file(folder.file("sweep/runs.csv")), ",done,3000,"), 3);
    EXPECT_NE(read_file(folder.file("sweep/runs/listops-dense-seed0.log")).find("going on after"),
              std::string::npos);
}

TEST(SweepCommand, SaysWhichRunHasFailed) {
    const ScratchFolder folder;
    folder.write("sweep.toml", std::string("arms = ['cf', 'mine']\n") + kSettings +
                                   "steps = 40\ntransition-step = 10\n[arm.mine]\npattern = '" +
                                   folder.file("missing.bits") + "'\n");
    const test::Result result = test::run(folder, sweep_of(folder));
    EXPECT_EQ(result.exit_code, 1) << result.err;
    EXPECT_NE(result.err.find("listops-mine-seed0 failed: spion: "), std::string::npos)
        << result.err;
    EXPECT_NE(result.err.find("missing.bits"), std::string::npos) << result.err;
    EXPECT_NE(read_file(folder.file("sweep/runs.csv")).find("listops-cf-seed0,listops,cf,,0,done"),
              std::string::npos);
}

TEST(SweepCommand, StopsWhenItsMinutesAreOver) {
    const ScratchFolder folder;
    folder.write("sweep.toml", std::string("seeds = [0, 1]\n") + kSettings + "steps = 400000\n");
    test::Arguments arguments = sweep_of(folder);
    arguments.insert(arguments.end(), {"--minutes", "0.02"});
    const test::Result result = test::run(folder, arguments);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(lines_with(read_file(folder.file("sweep/runs.csv")), ",begun,"), 2)
        << read_file(folder.file("sweep/runs.csv"));
    EXPECT_EQ(lines_with(read_file(folder.file("sweep/runs.csv")), ",not begun,"), 2);
}

// What a machine that was lent for a while has left, on another one: the folder has another name there.
TEST(SweepCommand, GoesOnInACopyOfItsFolder) {
    const ScratchFolder folder;
    folder.write("sweep.toml", std::string("arms = ['cf', 'window']\n") + kSettings +
                                   "steps = 1500\ntransition-step = 500\n");
    test::Arguments lent = sweep_of(folder);
    ASSERT_EQ(test::run(folder, sweep_of(folder)).exit_code, 0) << read_file(folder.file("err"));
    fs::rename(folder.file("sweep"), folder.file("whole"));
    lent.insert(lent.end(), {"--minutes", "0.008"});
    ASSERT_EQ(test::run(folder, lent).exit_code, 0) << read_file(folder.file("err"));

    fs::copy(folder.file("sweep"), folder.file("copy"), fs::copy_options::recursive);
    fs::remove_all(folder.file("sweep"));
    const test::Result rest =
        test::run(folder, {"sweep", folder.file("copy/sweep.toml"), "--out", folder.file("copy")});
    ASSERT_EQ(rest.exit_code, 0) << rest.err;
    // However far it had come: the minutes of the first machine are over, the run's are not.
    EXPECT_EQ(lines_with(read_file(folder.file("copy/runs.csv")), ",done,1500,"), 2);
    for (const char* run : {"runs/listops-cf-seed0", "runs/listops-window-seed0"}) {
        for (const char* file : {"/best_test.txt", "/patterns/layer1.bits"}) {
            const std::string name = std::string("/") + run + file;
            const std::string expected = read_file(folder.file("whole" + name));
            EXPECT_NE(expected, "") << name;
            EXPECT_EQ(read_file(folder.file("copy" + name)), expected) << name;
        }
    }
    // Checkpoints of what is done need not be carried along.
    for (const char* run : {"cf", "window"}) {
        fs::remove_all(folder.file(std::string("copy/runs/listops-") + run + "-seed0/checkpoints"));
    }
    const test::Result again =
        test::run(folder, {"sweep", folder.file("copy/sweep.toml"), "--out", folder.file("copy")});
    EXPECT_EQ(again.exit_code, 0);
    EXPECT_EQ(again.err, "");
    EXPECT_EQ(again.out, rest.out);
}

}  // namespace
}  // namespace spion
