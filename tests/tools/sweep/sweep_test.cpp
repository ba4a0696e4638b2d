// What a sweep's file means, and what its runs come to: without running any.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include "ir/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/scratch_folder.h"
#include "tools/sweep/page.h"
#include "tools/sweep/plan.h"
#include "tools/sweep/results.h"

namespace spion::sweep {
namespace {

Plan plan_of(const std::string& text) {
    const ScratchFolder folder;
    return read_plan(folder.write("sweep.toml", text));
}

std::string flag_of(const Run& run, const std::string& name) {
    for (const auto& [flag, value] : run.flags) {
        if (flag == name) return value;
    }
    return "none";
}

// The files that users are given to begin with.
TEST(SweepPlan, OfTheExamplesIsThePapersButForWhatTheySay) {
    const std::filesystem::path examples = SPION_SOURCE_ROOT "/examples/sweeps";
    const Plan quality = read_plan(examples / "quality.toml"),
               variants = read_plan(examples / "variants.toml");
    std::set<std::string> names;
    for (const Plan* plan : {&quality, &variants}) {
        for (const sweep::Run& run : plan->runs) {
            EXPECT_TRUE(names.insert(run.name).second) << run.name;
            const TrainSettings paper = preset_settings("paper", run.task);
            EXPECT_EQ(run.settings.steps, paper.steps) << run.name;
            EXPECT_EQ(run.settings.batch, paper.batch) << run.name;
            EXPECT_EQ(run.settings.attention_dropout, 0.1) << run.name;
            EXPECT_EQ(run.settings.sine_embedding, run.task == "pathfinder") << run.name;
            EXPECT_EQ(run.density_of.empty(), run.arm != "bigbird" && run.arm != "window");
        }
    }
    EXPECT_EQ(quality.runs.size(), 4U * 4 * 3);
    EXPECT_EQ(variants.runs.size(), 2U * 2 * 3);
    for (const sweep::Run& run : read_plan(examples / "pairs.toml").runs) {
        EXPECT_EQ(run.settings.ngram, run.arm == "bytes" ? 1 : 3) << run.name;
        EXPECT_EQ(run.settings.dense, run.arm == "bytes" || run.arm == "dense") << run.name;
    }
    // The pieces of quality.toml learn what it would.
    for (const sweep::Run& run : read_plan(examples / "listops.toml").runs) {
        const auto whole =
            std::find_if(quality.runs.begin(), quality.runs.end(),
                         [&](const sweep::Run& other) { return other.name == run.name; });
        ASSERT_NE(whole, quality.runs.end()) << run.name;
        EXPECT_EQ(run.density_of, whole->density_of);
        TrainSettings settings = run.settings;
        settings.checkpoint_minutes = whole->settings.checkpoint_minutes;
        settings.keep_checkpoints = whole->settings.keep_checkpoints;
        EXPECT_EQ(to_toml(settings), to_toml(whole->settings));
        names.erase(run.name);
    }
    EXPECT_EQ(names.size(), 4U * 4 * 3 + 2U * 2 * 3 - 12);
}

TEST(SweepPlan, HasARunForEachCombination) {
    const Plan plan = plan_of(R"(
tasks = ["listops", "image"]
arms = ["dense", "cf", "window", "mine"]
seeds = [3, 4]
lr = [0.001, 2e-3]
[settings]
steps = 5000
batch = 8
[task.image]
batch = 16
data = "pictures"
[arm.mine]
pattern = "strided"
density = 0.5
batch = 32
)");
    EXPECT_EQ(plan.runs.size(), 2U * 4 * 2 * 2);
    std::set<std::string> names;
    for (const sweep::Run& run : plan.runs) {
        names.insert(run.name);
        EXPECT_EQ(flag_of(run, "steps"), "5000");
        EXPECT_EQ(flag_of(run, "seed"), run.seed);
        EXPECT_EQ(run.settings.seed, std::stoull(run.seed));
        EXPECT_EQ(run.settings.learning_rate, std::stod(run.rate));
        EXPECT_EQ(run.settings.dense, run.arm == "dense");
        // The arm's table over the task's over the settings.
        EXPECT_EQ(run.settings.batch, run.arm == "mine" ? 32 : run.task == "image" ? 16 : 8);
        EXPECT_EQ(run.density_of, run.arm == "window" ? "cf" : "");
        EXPECT_EQ(run.settings.sparse_from_start, run.arm == "window");
    }
    EXPECT_EQ(names.size(), plan.runs.size());
    EXPECT_TRUE(names.count("image-mine-lr0.002-seed4"));
    // Those that need no other's density come first.
    EXPECT_EQ(plan.runs.back().arm, "window");
    EXPECT_NE(plan.runs[plan.runs.size() / 2].arm, "window");
}

TEST(SweepPlan, TakesTheDensityThatIsGiven) {
    EXPECT_EQ(plan_of("arms = ['cf', 'bigbird']\n[settings]\ndensity = 0.2\n").runs[1].density_of,
              "");
    EXPECT_EQ(plan_of("arms = ['cf', 'bigbird']\n").runs[1].density_of, "cf");
    EXPECT_EQ(plan_of("arms = ['dense', 'bigbird']\n").runs[1].density_of, "");
}

TEST(SweepPlan, HasArmsWithAPatternAHead) {
    const Plan plan = plan_of("arms = ['cf', 'heads']\n[arm.heads]\nper-head = true\n");
    EXPECT_FALSE(plan.runs.at(0).settings.per_head);
    EXPECT_TRUE(plan.runs.at(1).settings.per_head);
    EXPECT_EQ(flag_of(plan.runs[1], "per-head"), "true");
}

TEST(SweepPlan, SaysWhatIsWrongAndWhere) {
    const std::vector<std::pair<std::string, std::string>> cases = {
        {"steps = 5\n", "sweep.toml:1:1: steps stands outside of a table"},
        {"seed = [1]\n", "sweep.toml:1:1: seed is not known: a sweep has the lists tasks, arms"},
        {"seeds = [1, 1]\n", "seeds is empty or names something twice"},
        {"arms = []\n", "arms is empty"},
        {"arms = ['cg']\n", "the arm 'cg' is none of dense, cf, c, f, window"},
        {"tasks = ['listop']\n", "listop"},
        {"[task.image]\nbatch = 2\n",
         "image is a table of tasks, but no run has this one: it has listops"},
        {"[settings]\nseed = 2\n", "sweep.toml:2:1: seed is of the sweep itself"},
        {"[settings]\nstps = 2\n", "sweep.toml:2:1: stps"},
        {"[settings]\nsteps = [2]\n", "steps is a list: settings have one value"},
        {"[arm]\nbatch = 2\n", "batch is of no task or arm"},
        {"[settings]\nwarmup = 100\nsteps = 50\n", "warmup is 100 steps of only 50"},
        {"arms = ['window']\n[settings]\nper-head = true\ndensity = 0.1\n",
         "per-head gives each head a pattern of its own, but window is the same for all"},
        {"arms = ['a/b']\n[arm.'a/b']\n", "the arm 'a/b' is no name of a folder"},
        {"seeds = [1979-05-27]\n", "seeds is no list of numbers and words"},
    };
    for (const auto& [text, message] : cases) {
        SCOPED_TRACE(text);
        expect_error<UserError>([&text = text] { plan_of(text); }, message);
    }
}

TEST(SweepResults, StandardErrorIsThatOfTheMean) {
    EXPECT_EQ(spread_of({}).count, 0);
    EXPECT_FALSE(spread_of({5}).error);
    const Spread spread = spread_of({36.3, 37.75, 38.3});
    EXPECT_NEAR(spread.mean, 37.45, 1e-12);
    // s^2 = (1.15^2 + 0.3^2 + 0.85^2) / 2 = 1.0675
    EXPECT_NEAR(*spread.error, std::sqrt(1.0675 / 3), 1e-12);
    EXPECT_EQ(spread_text(spread, 2), "37.45 \xC2\xB1 0.60");
    EXPECT_EQ(spread_text(spread_of({5}), 1), "5.0");
    EXPECT_EQ(spread_text({}, 1), "");
}

// A run's folder as training leaves it.
void write_run(const ScratchFolder& sweep, const std::string& name, const std::string& test,
               double sparse_ms) {
    std::filesystem::create_directories(sweep.path() / "runs" / name);
    const std::string folder = "runs/" + name + "/";
    sweep.write(folder + "config.toml", "");
    sweep.write(folder + "metrics.csv",
                "step,phase,split,loss,accuracy,learning_rate,step_ms,steps_per_second,density,"
                "seconds\n"
                "500,dense,train,2,0.2,0.001,9,111,1,30.0\n500,dense,validation,2,0.3,,,,1,60.0\n"
                "1000,sparse,validation,2,0.4,,,,1,120.0\n2000,sparse,validation,2,0.35,,,,1,300\n"
                "5000,sparse,test,2,0.36,,,,1,600\n");
    sweep.write(folder + "summary.json",
                fmt::format(R"({{"device": "a, card", "steps": 5000, "diverged": null,
 "densities": [0.04, 0.06], "dense_step_ms": 9, "sparse_step_ms": {}, "peak_device_bytes": 2147483648,
 "test": {{"loss": 2, "accuracy": 0.36}}}})",
                            sparse_ms));
    sweep.write(folder + "best_test.txt", test);
}

TEST(SweepResults, AreReadFromTheFoldersOfRuns) {
    const ScratchFolder sweep;
    const Plan plan = plan_of("arms = ['cf']\nseeds = [0, 1, 2]\n[settings]\nsteps = 5000\n");
    write_run(sweep, "listops-cf-seed0",
              "step 1000: test loss 2.0100, accuracy 38.00 % of 2000 samples\n", 4);
    write_run(sweep, "listops-cf-seed1",
              "step 1000: test loss 1.9100, accuracy 40.00 % of 2000 samples\n", 6);
    std::vector<RunResult> results;
    for (const sweep::Run& run : plan.runs) results.push_back(read_result(sweep.path(), run));
    EXPECT_EQ(results[0].state, "done");
    EXPECT_EQ(results[2].state, "not begun");
    EXPECT_EQ(results[0].seconds_to_best, 120);
    EXPECT_EQ(results[0].density(), 0.05);
    const std::vector<Row> rows = rows_of(plan, results);
    ASSERT_EQ(rows.size(), 1U);
    const std::string markdown = table_markdown(rows);
    EXPECT_NE(
        markdown.find("| listops | cf |  | 2 of 3 | 39.00 \xC2\xB1 1.00 | 36.00 \xC2\xB1 0.00 "
                      "| 5.00 \xC2\xB1 1.00 | 0.050 \xC2\xB1 0.000 | 2.00 \xC2\xB1 0.00 | "
                      "10.0 \xC2\xB1 0.0 | 2.0 \xC2\xB1 0.0 |\n"),
        std::string::npos)
        << markdown;
    EXPECT_NE(table_csv(rows).find("\nlistops,cf,,3,2,39,1,36,0,5,1,0.05,0,2,0,10,0,2,0\n"),
              std::string::npos)
        << table_csv(rows);
    EXPECT_NE(runs_csv(plan, results)
                  .find("listops-cf-seed0,listops,cf,,0,done,5000,0.38,0.36,0.4,"
                        "0.05,9,4,2147483648,600.000,120.000,\"a, card\"\n"),
              std::string::npos)
        << runs_csv(plan, results);
    const std::string page = to_html("quality <1>", plan, results, rows);
    EXPECT_NE(page.find("<h1>quality &lt;1&gt;</h1>"), std::string::npos);
    EXPECT_NE(page.find("39.00 \xC2\xB1 1.00"), std::string::npos);
    EXPECT_EQ(page.find("http"), std::string::npos) << "something is fetched";
}

TEST(SweepResults, RefuseASummaryOfAnother) {
    const ScratchFolder sweep;
    const Plan plan = plan_of("arms = ['cf']\n");
    std::filesystem::create_directories(sweep.path() / "runs/listops-cf-seed0");
    sweep.write("runs/listops-cf-seed0/summary.json", "{\"steps\": 3}");
    expect_error<UserError>([&] { read_result(sweep.path(), plan.runs[0]); },
                            "summary.json is not as `spion train` writes it");
}

}  // namespace
}  // namespace spion::sweep
