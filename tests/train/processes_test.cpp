// Training by several processes that add up their gradients: the command started as torchrun starts
// it, on the host, where shared memory stands in for NCCL.
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "runtime/ranks/rank_file.h"
#include "tests/support/scratch_folder.h"
#include "tests/train/command_process.h"
#include "tests/train/files.h"
#include "tests/train/job.h"
#include "tests/train/tiny_run.h"
#include "train/checkpoint.h"
#include "train/data/listops.h"

namespace spion {
namespace {

namespace fs = std::filesystem;
using test::Arguments;
using test::Job;
using test::Launcher;
using test::Process;
using test::Result;
using test::run_job;
using test::wait_until;
using test::operator+;

Arguments tiny(const std::string& out, int steps, int batch = 4) {
    return test::tiny_listops(
        out, 2,
        {"--batch", std::to_string(batch), "--test-samples", "7", "--warmup", "2", "--steps",
         std::to_string(steps), "--eval-every", "10", "--quantile", "0.8"});
}

using Rows = std::vector<std::vector<std::string>>;

// Of metrics.csv: step, phase, split, loss, accuracy, learning rate.
Rows rows_of(const std::string& run) {
    std::istringstream metrics(read_file(run + "/metrics.csv"));
    Rows rows;
    for (std::string line; std::getline(metrics, line);) {
        auto row = cells(line);
        row.resize(6);
        rows.push_back(row);
    }
    return rows;
}

// The same rows, with losses that differ by rounding alone, which grows from step to step: AdamW
// makes steps of one size of gradients of any.
void expect_close(const std::string& run, const std::string& other) {
    const Rows a = rows_of(run), b = rows_of(other);
    ASSERT_EQ(a.size(), b.size());
    ASSERT_GT(a.size(), 10U);
    for (std::size_t i = 1; i < a.size(); ++i) {
        EXPECT_EQ(a[i][0] + a[i][1] + a[i][2], b[i][0] + b[i][1] + b[i][2]);
        const double tolerance = i < 8 ? 1e-5 : 0.01;
        EXPECT_NEAR(std::stod(a[i][3]), std::stod(b[i][3]), tolerance) << "row " << i;
    }
}

Checkpoint last_of(const std::string& run) {
    return read_checkpoint(CheckpointFolder(run + "/checkpoints").files().at(0));
}

// The transition by its rule, so that maps and their distances are those of all batches.
TEST(Processes, LearnWhatOneLearnsFromTheJointBatch) {
    const ScratchFolder folder;
    const Arguments rest = {"--dropout",           "0", "--attention-dropout", "0",
                            "--transition-change", "90"};
    for (const int count : {2, 3}) {
        const std::string one = folder.file(fmt::format("one{}", count)),
                          many = folder.file(fmt::format("many{}", count));
        run_job(folder, 1, tiny(one, 50, 4 * count) + rest);
        run_job(folder, count, tiny(many, 50) + rest);
        expect_close(many, one);
        EXPECT_TRUE(last_of(one).state.transition_step) << "no run turned sparse";
        EXPECT_EQ(last_of(many).state.transition_step, last_of(one).state.transition_step);
        EXPECT_EQ(last_of(many).patterns, last_of(one).patterns);
        EXPECT_EQ(last_of(many).state.processes, count);
    }
}

// Dropout too: batch i of a step draws alike, whoever computes it.
TEST(Processes, RepeatBitForBitAndDropAlike) {
    const ScratchFolder folder;
    const Arguments rest = {"--transition-step", "15", "--accumulate", "2"};
    const std::string first = folder.file("first"), again = folder.file("again"),
                      alone = folder.file("alone");
    run_job(folder, 3, tiny(first, 40) + rest);
    run_job(folder, 3, tiny(again, 40) + rest);
    EXPECT_EQ(rows_of(first), rows_of(again));
    EXPECT_EQ(last_of(first).values, last_of(again).values);
    EXPECT_EQ(last_of(first).patterns, last_of(again).patterns);
    run_job(folder, 1, tiny(alone, 40) + Arguments{"--transition-step", "15", "--accumulate", "6"});
    expect_close(first, alone);
    // One process writes.
    EXPECT_EQ(nlohmann::json::parse(read_file(first + "/summary.json")).at("processes"), 3);
    EXPECT_TRUE(fs::exists(first + "/patterns/layer1.bits"));
}

// Each of these was started by what mpirun of Open MPI, mpirun of MPICH and srun tell their processes.
TEST(Processes, LearnTheSameWhicheverLauncherStartsThem) {
    const ScratchFolder folder;
    const std::string torchrun = folder.file("RANK");
    run_job(folder, 2, tiny(torchrun, 20));
    for (const Launcher& launcher : std::vector<Launcher>{
             {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"},
             {"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"},
             {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"}}) {
        SCOPED_TRACE(launcher.rank);
        const std::string out = folder.file(launcher.rank);
        run_job(folder, 2, tiny(out, 20), launcher);
        EXPECT_EQ(rows_of(out), rows_of(torchrun));
        EXPECT_EQ(last_of(out).values, last_of(torchrun).values);
        EXPECT_EQ(last_of(out).state.processes, 2);
    }
}

// A pattern a head, found in maps of all batches: in each process the same, and those of one alone.
TEST(Processes, FindThePatternsOfHeadsTogether) {
    const ScratchFolder folder;
    const Arguments rest = {
        "--dropout", "0", "--attention-dropout", "0",  "--transition-step", "15",
        "--heads",   "2", "--d-model",           "32", "--per-head"};
    const std::string one = folder.file("one"), many = folder.file("many");
    run_job(folder, 1, tiny(one, 30, 8) + rest);
    run_job(folder, 2, tiny(many, 30) + rest);
    expect_close(many, one);
    EXPECT_EQ(last_of(many).patterns, last_of(one).patterns);
    EXPECT_EQ(last_of(many).patterns.at(0).count(), 2);
}

TEST(Processes, EndWhenOneIsKilled) {
    for (const int killed : {0, 1}) {
        const ScratchFolder folder;
        const std::string out = folder.file("run");
        const Job job(folder, 2, tiny(out, 4000000) + Arguments{"--checkpoint-every", "20"});
        wait_until([&] { return fs::exists(out + "/checkpoints"); });
        job.kill(killed, SIGKILL);
        const auto begin = std::chrono::steady_clock::now();
        const auto results = job.wait();
        EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(30));
        const Result& other = results[static_cast<std::size_t>(1 - killed)];
        EXPECT_EQ(other.exit_code, 2);
        EXPECT_NE(other.err.find(fmt::format("process {} of 2 on ", killed)), std::string::npos)
            << other.err;
        EXPECT_NE(other.err.find("was killed or has crashed, so all end"), std::string::npos)
            << other.err;
    }
}

// An error in the settings, the data or the device of one, before the other waits for it or while it
// does, which without a word would be for 300 s. The variable hides a GPU that the machine may have.
TEST(Processes, EndWhenOneEndsBeforeTheyMeet) {
    struct Case {
        int rank;  // that ends
        Arguments its;
        std::string reason;
    };
    const std::vector<Case> cases = {{0, {"--batch", "0"}, "--batch"},
                                     {0, {"--data", "no-such-folder"}, "no-such-folder"},
                                     {1, {"--data", "no-such-folder"}, "no-such-folder"},
                                     {1, {"--device", "cuda"}, "device cuda was asked for"}};
    std::vector<std::unique_ptr<ScratchFolder>> folders;
    std::vector<Job> jobs;
    const auto begin = std::chrono::steady_clock::now();
    for (std::size_t i = 0; i < cases.size(); ++i) {
        folders.push_back(std::make_unique<ScratchFolder>());
        jobs.emplace_back(*folders[i], 2, [&](int rank) {
            return Process{tiny(folders[i]->file("run"), 20) +
                               (rank == cases[i].rank ? cases[i].its : Arguments{}),
                           {{"CUDA_VISIBLE_DEVICES", ""}}};
        });
    }
    for (std::size_t i = 0; i < cases.size(); ++i) {
        const auto results = jobs[i].wait();
        for (const Result& result : results) {
            EXPECT_EQ(result.exit_code, 2);
            EXPECT_NE(result.err.find(cases[i].reason), std::string::npos) << result.err;
        }
        const std::string& other = results[static_cast<std::size_t>(1 - cases[i].rank)].err;
        EXPECT_NE(other.find(fmt::format(
                      "process {} of 2 on {} has ended, so all do: ", cases[i].rank, host_name())),
                  std::string::npos)
            << other;
    }
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60));
    run_job(*folders[0], 2, tiny(folders[0]->file("run"), 20));  // as good as a new one
}

// Two of three have come, of which one can say nothing any more.
TEST(Processes, EndWhenOneIsKilledBeforeTheyMeet) {
    const ScratchFolder folder;
    const std::string out = folder.file("run");
    std::vector<pid_t> children;
    for (const char* rank : {"0", "1"}) {
        children.push_back(
            test::start(folder, tiny(out, 20), {{"RANK", rank}, {"WORLD_SIZE", "3"}}, rank));
    }
    wait_until([&] {
        return read_rank_file(out + "/ranks/rank-0") && read_rank_file(out + "/ranks/rank-1");
    });
    ::kill(children[1], SIGKILL);
    EXPECT_EQ(test::wait_for(folder, children[1], "1").exit_code, -SIGKILL);
    const Result other = test::wait_for(folder, children[0], "0");
    EXPECT_EQ(other.exit_code, 2);
    EXPECT_NE(other.err.find("was killed or has crashed before all had come, so all end"),
              std::string::npos)
        << other.err;
}

// Told to one, heard by both, at the same step; then other numbers of processes go on.
TEST(Processes, StopTogetherAndGoOnInOtherNumbers) {
    const ScratchFolder folder;
    const std::string whole = folder.file("whole"), part = folder.file("part");
    const Arguments rest = {"--transition-step",   "150", "--dropout",    "0",
                            "--attention-dropout", "0",   "--eval-every", "100"};
    run_job(folder, 2, tiny(whole, 600, 3) + rest);
    const Job job(folder, 2, tiny(part, 600, 3) + rest + Arguments{"--checkpoint-every", "100"});
    wait_until([&] { return fs::exists(part + "/checkpoints"); });
    job.kill(1, SIGTERM);
    for (const Result& result : job.wait()) {
        EXPECT_EQ(result.exit_code, 128 + SIGTERM) << result.err;
    }
    const Arguments resume = {"train", "listops", "--resume", part};
    for (const Result& result : Job(folder, 4, resume).wait()) {
        EXPECT_EQ(result.exit_code, 2);
        EXPECT_NE(result.err.find("6 samples a step with 2 processes, which 4 cannot share evenly"),
                  std::string::npos)
            << result.err;
    }
    const auto results = Job(folder, 3, resume).wait();
    for (const Result& result : results) ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_NE(results[0].err.find("the run had 2 processes and has 3 now: the same samples a step "
                                  "(1 batches of 2 each)"),
              std::string::npos)
        << results[0].err;
    EXPECT_EQ(results[1].err, "");
    expect_close(part, whole);
    EXPECT_EQ(last_of(part).patterns, last_of(whole).patterns);
}

TEST(Processes, RefuseToLearnDifferentThings) {
    const ScratchFolder folder;
    const auto results = Job(folder, 2, [&](int rank) {
                             const char* rate = rank == 0 ? "0.001" : "0.002";
                             return Process{tiny(folder.file("run"), 20) + Arguments{"--lr", rate}};
                         }).wait();
    for (const Result& result : results) {
        EXPECT_EQ(result.exit_code, 2);
        EXPECT_NE(result.err.find("process 1 of 2 has other settings"), std::string::npos)
            << result.err;
    }
}

// The files have one name, and each process finds its own.
TEST(Processes, RefuseToGoOnWithDifferentPatterns) {
    const ScratchFolder folder;
    const Arguments arguments = tiny(folder.file("run"), 20) +
                                Arguments{"--pattern", "mine.bits", "--transition-step", "5"};
    const auto results = Job(folder, 2, [&](int rank) {
                             const std::string own = std::to_string(rank);
                             fs::create_directory(folder.file(own));
                             folder.write(own + "/mine.bits", "1000\n" + own + "100\n0010\n0001\n");
                             return Process{arguments, {}, folder.file(own)};
                         }).wait();
    for (const Result& result : results) {
        EXPECT_EQ(result.exit_code, 2);
        for (const char* part : {"process 1 of 2 has another pattern in layer 0 than process 0 (",
                                 "with the same file for --pattern"}) {
            EXPECT_NE(result.err.find(part), std::string::npos) << result.err;
        }
    }
}

// The second process reads the cache of the first one, and would keep in its own what it compiles,
// kernels of tier 1 among it, which are compiled while training goes on.
TEST(Processes, CompileInTheFirstOfAMachineAlone) {
    const ScratchFolder folder;
    const std::string first = folder.file("first"), own = folder.file("own");
    fs::create_directory(first);
    fs::permissions(first, fs::perms::owner_all);
    const Arguments arguments =
        tiny(folder.file("run"), 2000) + Arguments{"--transition-step", "50"};
    const auto results = Job(folder, 2, [&](int rank) {
                             const std::string cache = rank == 0 ? first : own + ":" + first;
                             return Process{arguments, {{"SPION_CACHE_DIR", cache}}};
                         }).wait();
    for (const Result& result : results) ASSERT_EQ(result.exit_code, 0) << result.err;
    bool baked = false;
    for (const auto& entry : fs::directory_iterator(first)) {
        baked = baked || entry.path().string().find("baked") != std::string::npos;
    }
    EXPECT_TRUE(baked) << "no kernel of tier 1 was compiled: the run was too short";
    for (const auto& entry : fs::directory_iterator(own)) {
        ADD_FAILURE() << "the second process has compiled " << entry.path().filename();
    }
}

// A token that is not finite, and that one sample alone has, which one rank alone meets in step 9.
TEST(Processes, EndTogetherWhenOneDiverges) {
    constexpr int kSamples = 40, kFrom = 6, kDiverging = 8;  // steps done before
    constexpr int kProcesses = 2;
    for (int rank = 0; rank < kProcesses; ++rank) {
        SCOPED_TRACE(rank);
        const ScratchFolder folder;
        ShuffledOrder order(kSamples, 0);
        const std::int64_t marked = order.batch(kDiverging * kProcesses + rank, 1).front();
        std::string train = "Source\tTarget\n", rest = train;
        for (int i = 0; i < kSamples; ++i) {
            train += i == marked ? "[MIN 9 9 ]\t9\n"
                                 : fmt::format("[MAX 1 {} ]\t{}\n", i % 7 + 1, i % 7 + 1);
        }
        for (int i = 0; i < 4; ++i) rest += "[MAX 1 2 ]\t2\n";
        fs::create_directory(folder.file("data"));
        folder.write("data/basic_train.tsv", train);
        folder.write("data/basic_val.tsv", rest);
        folder.write("data/basic_test.tsv", rest);
        const std::string out = folder.file("run");
        run_job(folder, kProcesses,
                tiny(out, 12, 1) + Arguments{"--data", folder.file("data"), "--checkpoint-every",
                                             "3", "--keep-checkpoints", "9", "--dense"});
        for (const fs::path& file : CheckpointFolder(out + "/checkpoints").files()) {
            Checkpoint checkpoint = read_checkpoint(file);
            if (checkpoint.state.step > kFrom) fs::remove(file);
            if (checkpoint.state.step != kFrom) continue;
            const ParameterLayout layout(model_shape(checkpoint.settings, checkpoint.classes));
            const std::int64_t row = layout.token + *parse_list_ops_token("9") * layout.channels();
            checkpoint.values[static_cast<std::size_t>(row)] =
                std::numeric_limits<float>::infinity();
            write_checkpoint(file, checkpoint);
        }
        const auto results = Job(folder, kProcesses, {"train", "listops", "--resume", out}).wait();
        for (const Result& result : results) EXPECT_EQ(result.exit_code, 4) << result.err;
        EXPECT_NE(results[0].err.find("training has diverged"), std::string::npos)
            << results[0].err;
        EXPECT_NE(results[0].err.find(fmt::format("at step {}:", kDiverging + 1)),
                  std::string::npos)
            << results[0].err;
    }
}

// Each rank is one process: its file is locked.
TEST(Processes, AreOneOfEachRank) {
    const ScratchFolder folder;
    const std::string out = folder.file("run");
    const Job job(folder, 2, tiny(out, 4000000));
    wait_until([&] { return fs::exists(out + "/checkpoints"); });
    // A second process of rank 1 is refused and leaves the first one alone.
    const pid_t second = test::start(folder, {"train", "listops", "--resume", out},
                                     {{"RANK", "1"}, {"WORLD_SIZE", "2"}}, "second");
    const Result refused = test::wait_for(folder, second, "second");
    EXPECT_EQ(refused.exit_code, 2);
    EXPECT_NE(refused.err.find("another process that is still running has"), std::string::npos)
        << refused.err;
    job.kill(0, SIGINT);
    for (const Result& result : job.wait()) EXPECT_EQ(result.exit_code, 128 + SIGINT);
}

TEST(DivideAmong, KeepsTheSamplesOfAStep) {
    struct Case {
        int batch, accumulate, before, now, new_batch, new_accumulate;
    };
    for (const Case& c : std::vector<Case>{{256, 1, 2, 2, 256, 1},
                                           {256, 1, 2, 1, 256, 2},
                                           {256, 1, 1, 2, 128, 1},
                                           {256, 2, 1, 2, 256, 1},
                                           {256, 1, 4, 8, 128, 1},
                                           {12, 1, 2, 3, 8, 1},
                                           {6, 3, 2, 4, 3, 3},
                                           {7, 1, 2, 7, 2, 1}}) {
        TrainSettings settings;
        settings.batch = c.batch;
        settings.accumulate = c.accumulate;
        divide_among(settings, c.before, c.now);
        EXPECT_EQ(settings.batch, c.new_batch);
        EXPECT_EQ(settings.accumulate, c.new_accumulate);
        EXPECT_EQ(settings.batch * settings.accumulate * c.now, c.batch * c.accumulate * c.before);
    }
}

}  // namespace
}  // namespace spion
