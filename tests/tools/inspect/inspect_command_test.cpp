// `spion inspect` on a run of seconds and on compiled kernels.
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
    for (const char* part : {"turned sparse after step 4", "Layer 1", "Pooled scores", "dK, dV",
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
