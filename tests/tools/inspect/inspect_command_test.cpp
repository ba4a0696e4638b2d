// `spion inspect` on a run of seconds and on compiled kernels.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/support/run_command.h"
#include "tests/tools/inspect/tiny_run.h"
#include "tests/train/files.h"

namespace spion {
namespace {

TEST(InspectCommand, ShowsARunOnOnePageThatNeedsNothingElse) {
    const ScratchFolder folder;
    const CommandResult result =
        run_command("inspect " + tiny_run() + " --html " + folder.file("page.html"));
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const std::string page = read_file(folder.file("page.html"));
    for (const char* part : {"turned sparse after step 4", "Layer 1", "Pooled scores", "dK and dV",
                             "of roofline", "class=\"line validation\"", "sparse from here",
                             "kernel.ll", "attention_forward-b16", "Trained 8 of 8 steps"}) {
        EXPECT_NE(page.find(part), std::string::npos) << part;
    }
    for (const char* part : {"http://", "https://", "src=", "@import", "url("}) {
        EXPECT_EQ(page.find(part), std::string::npos) << part;
    }
}

TEST(InspectCommand, PrintsTheSameFacts) {
    const CommandResult result = run_command("inspect " + tiny_run() + " --text");
    ASSERT_EQ(result.exit_code, 0) << result.err;
    for (const char* part : {"turned sparse after step 4", "Layer 1: ", "validation loss",
                             "Roofline: ", "measured", "transition-step"}) {
        EXPECT_NE(result.out.find(part), std::string::npos) << part << "\n" << result.out;
    }
}

// Attention's part of a step is known for both phases.
TEST(InspectCommand, SplitsDenseAndSparseSteps) {
    const CommandResult result = run_command("inspect " + tiny_run() + " --text");
    const std::size_t begin = result.out.find("step time ");
    ASSERT_NE(begin, std::string::npos) << result.out;
    const std::string line = result.out.substr(begin, result.out.find('\n', begin) - begin);
    const std::size_t dense = line.find(" (attention "), sparse = line.rfind(" (attention ");
    EXPECT_NE(dense, std::string::npos) << line;
    EXPECT_LT(dense, sparse) << line;
    EXPECT_LT(line.find("dense "), dense) << line;
}

// A run that turned sparse by the rule has a map of every evaluation; of large ones 64 means a side.
TEST(InspectCommand, ShowsHowTheMapsCameToBe) {
    const ScratchFolder folder;
    std::filesystem::copy(tiny_run(), folder.file("run"), std::filesystem::copy_options::recursive);
    EXPECT_TRUE(std::filesystem::exists(folder.file("run/maps/layer1-step00000004.csv")));
    std::filesystem::remove_all(folder.file("run/maps"));
    std::filesystem::create_directories(folder.file("run/maps"));
    for (const int step : {2, 4, 6, 8, 10, 12, 14, 16, 18, 20}) {
        folder.write(fmt::format("run/maps/layer1-step{:08}.csv", step), "0,1\n0.5,0.25\n");
    }
    folder.write("run/maps/notes.txt", "not a map");
    const std::string inspect =
        "inspect " + folder.file("run") + " --html " + folder.file("page.html");
    ASSERT_EQ(run_command(inspect).exit_code, 0);
    const std::string page = read_file(folder.file("page.html"));
    const std::size_t title = page.find("Pooled scores over training");
    EXPECT_NE(title, std::string::npos);
    EXPECT_EQ(page.find("Pooled scores over training", title + 1), std::string::npos)
        << "layer 0 has none";
    EXPECT_NE(page.find("after step 2<"), std::string::npos);
    EXPECT_NE(page.find("after step 20<"), std::string::npos);
    folder.write("run/maps/layer1-step00000022.csv", "0,1,2\n0.5,0.25,1\n");
    expect_refused(inspect, {"layer1-step00000022.csv: 6 numbers in 2 rows are no square map"});
    folder.write("run/maps/layer1-step00000022.csv", "0,1\n0.5,x\n");
    expect_refused(inspect, {"layer1-step00000022.csv:2: number 4 of the pooled map"});
}

// A run with a pattern a head shows each of them, and how unevenly full they are.
TEST(InspectCommand, ShowsThePatternsOfHeads) {
    const ScratchFolder folder;
    const Environment cache("SPION_CACHE_DIR", folder.file("cache"));
    const CommandResult trained = run_command(
        "train listops --device cpu --preset demo --length 96 --min-length 10 --max-length 90 "
        "--layers 1 --heads 2 --head-dim 16 --d-model 32 --feed-forward 16 --batch 4 --block 16 "
        "--train-samples 40 --validation-samples 4 --test-samples 4 --steps 6 --warmup 2 "
        "--eval-every 2 --transition-step 4 --per-head --out " +
        folder.file("run"));
    ASSERT_EQ(trained.exit_code, 0) << trained.err;
    EXPECT_NE(trained.err.find("layer 0: 2 patterns, densities "), std::string::npos)
        << trained.err;
    EXPECT_NE(trained.err.find("head 1: "), std::string::npos) << trained.err;
    EXPECT_NE(trained.out.find(" times its layer's mean ("), std::string::npos) << trained.out;
    const auto json = nlohmann::json::parse(read_file(folder.file("run/summary.json")));
    const CommandResult text = run_command("inspect " + folder.file("run") + " --text");
    ASSERT_EQ(text.exit_code, 0) << text.err;
    EXPECT_NE(text.out.find(fmt::format("the fullest has {:.2f} times the mean",
                                        json.at("balances").at(0).get<double>())),
              std::string::npos)
        << text.out;
    EXPECT_NE(text.out.find("\nHead 1: "), std::string::npos) << text.out;
    const std::string page = folder.file("page.html");
    ASSERT_EQ(run_command("inspect " + folder.file("run") + " --html " + page).exit_code, 0);
    const std::string html = read_file(page);
    for (const char* part : {"<h4>Head 0: ", "<h4>Head 1: ", "fullest head over mean"}) {
        EXPECT_NE(html.find(part), std::string::npos) << part;
    }
    EXPECT_EQ(html.find("is not in patterns/"), std::string::npos);
}

TEST(InspectCommand, ComparesRuns) {
    const ScratchFolder folder;
    std::filesystem::create_directories(folder.file("b"));
    std::filesystem::copy(tiny_run(), folder.file("b/run"),
                          std::filesystem::copy_options::recursive);
    std::string config = read_file(folder.file("b/run/config.toml"));
    const std::size_t rate = config.find("\nlr = ") + 6;
    config.replace(rate, config.find('\n', rate) - rate, "0.125");
    folder.write("b/run/config.toml", config);
    const std::string runs = tiny_run() + " " + folder.file("b/run");
    const CommandResult text = run_command("inspect " + runs);
    ASSERT_EQ(text.exit_code, 0) << text.err;
    for (const char* part : {"test accuracy", "turned sparse after  4  4", "b/run", "0.125"}) {
        std::string squeezed;  // runs of spaces are two
        for (const char c : text.out) {
            if (c != ' ' || !squeezed.ends_with("  ")) squeezed += c;
        }
        EXPECT_NE(squeezed.find(part), std::string::npos) << part << "\n" << text.out;
    }
    EXPECT_EQ(text.out.find("warmup"), std::string::npos) << "both have the same";
    const CommandResult page =
        run_command("inspect " + runs + " --html " + folder.file("page.html"));
    ASSERT_EQ(page.exit_code, 0) << page.err;
    const std::string html = read_file(folder.file("page.html"));
    for (const char* part : {"2 runs", "Validation accuracy", "class=\"line run1\"", "b/run",
                             "Settings that differ", "0.125", "<h3>Layer 1</h3>"}) {
        EXPECT_NE(html.find(part), std::string::npos) << part;
    }
    const CommandResult same = run_command("inspect " + tiny_run() + " " + tiny_run());
    EXPECT_NE(same.out.find("Settings that differ\n  none\n"), std::string::npos) << same.out;
    expect_refused("inspect " + runs + " " + folder.file("none"), {"is no folder"});
}

TEST(InspectCommand, ShowsCompiledKernels) {
    const ScratchFolder folder;
    folder.write("a.bits", "100\n110\n011\n");
    const CommandResult made = run_command("compile --pattern " + folder.file("a.bits") +
                                           " --block 16 --length 48 --head-dim 16 --dtype fp32 "
                                           "--target host --emit all -o " +
                                           folder.file("kernels"));
    ASSERT_EQ(made.exit_code, 0) << made.err;
    const CommandResult result =
        run_command("inspect " + folder.file("kernels") + " --html " + folder.file("page.html"));
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const std::string page = read_file(folder.file("page.html"));
    for (const char* part : {"Pattern 0", "kernel.s", "predicted", "of roofline"}) {
        EXPECT_NE(page.find(part), std::string::npos) << part;
    }
}

// Each kernel in blocks of its own: one layer all the same.
TEST(InspectCommand, ShowsKernelsOfFullPatternsThatWereCut) {
    for (const std::string option : {"", " --heads 4 --kv-heads 2 --pattern-heads query"}) {
        const ScratchFolder folder;
        const CommandResult made = run_command(
            "compile --pattern-random 1 --block 32 --length 300 --target sm_90a "
            "--emit tile --out " +
            folder.file("made") + option);
        ASSERT_EQ(made.exit_code, 0) << made.err;
        const CommandResult shown = run_command("inspect " + folder.file("made") + " --text");
        ASSERT_EQ(shown.exit_code, 0) << shown.err;
        EXPECT_NE(shown.out.find("Layer 0: "), std::string::npos) << shown.out;
        EXPECT_EQ(shown.out.find("Layer 1: "), std::string::npos) << shown.out;
    }
}

TEST(InspectCommand, ReadsARunThatWasKilled) {
    const ScratchFolder folder;
    std::filesystem::copy(tiny_run(), folder.file("run"), std::filesystem::copy_options::recursive);
    std::filesystem::remove(folder.file("run/summary.json"));
    std::filesystem::remove_all(folder.file("run/kernels"));
    const CommandResult result = run_command("inspect " + folder.file("run"));
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_NE(result.out.find("There is no summary.json"), std::string::npos) << result.out;
    EXPECT_NE(result.out.find("Unfinished: at 8 of 8 steps"), std::string::npos) << result.out;
}

TEST(InspectCommand, SaysWhatBecameOfEachLayersTiers) {
    const ScratchFolder folder;
    std::filesystem::copy(tiny_run(), folder.file("run"), std::filesystem::copy_options::recursive);
    auto summary = nlohmann::json::parse(read_file(folder.file("run/summary.json")));
    EXPECT_GT(summary.at("stall_ms").at("total").get<double>(), 0);
    summary["stall_ms"]["total"] = 12.5;
    summary["tiers"] = {
        {{"layer", 1}, {"taken", true}, {"why_not", ""}, {"tier0_ms", 0.5}, {"tier1_ms", 0.25}},
        {{"layer", 0}, {"taken", false}, {"why_not", "too <long>"}}};
    folder.write("run/summary.json", summary.dump());
    const CommandResult text = run_command("inspect " + folder.file("run"));
    ASSERT_EQ(text.exit_code, 0) << text.err;
    for (const char* part : {"it stood still for 12.5 ms", "Kernels",
                             "layer 1: tier 1 taken: 0.2500 ms a pass, tier 0 0.5000 ms",
                             "layer 0: tier 1 is not worth trying: too <long>"}) {
        EXPECT_NE(text.out.find(part), std::string::npos) << part << text.out;
    }
    const CommandResult page =
        run_command("inspect " + folder.file("run") + " --html " + folder.file("page.html"));
    ASSERT_EQ(page.exit_code, 0) << page.err;
    const std::string html = read_file(folder.file("page.html"));
    for (const char* part : {"layer 1: tier 1 taken", "too &lt;long&gt;", ">tier</th>",
                             "the pattern in the source.", "the pattern passed as tables."}) {
        EXPECT_NE(html.find(part), std::string::npos) << part;
    }
}

TEST(InspectCommand, RefusesBadInputInOneSentence) {
    const ScratchFolder folder;
    expect_refused("inspect " + folder.file("none"), {"is no folder"});
    expect_refused("inspect " + folder.file(""), {"holds neither"});
    expect_refused("inspect " + tiny_run() + " --html /nowhere/page.html",
                   {"/nowhere/page.html cannot be written"});
    folder.write("metrics.csv", "step,phase,split,loss,accuracy\n1,dense,train,x,0\n");
    expect_refused("inspect " + folder.file(""), {"metrics.csv:2: loss is 'x'"});
}

}  // namespace
}  // namespace spion
