// `spion bench predicted` without a GPU, and `spion bench attention --autotune` on the host.
#include <gtest/gtest.h>

#include <fmt/ranges.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "ir/target.h"
#include "tests/support/run_command.h"

namespace spion {
namespace {

using Json = nlohmann::json;

TEST(BenchPredicted, PrintsPredictionsForANamedTarget) {
    std::set<std::string> outputs;
    for (const std::string& target : gpu_names()) {
        const CommandResult result = run_command("bench predicted --json --target " + target);
        ASSERT_EQ(result.exit_code, 0) << result.err;
        const Json json = Json::parse(result.out);
        EXPECT_EQ(json.at("target"), target);
        EXPECT_GE(json.at("rows").size(), 12U);
        for (const Json& row : json.at("rows")) {
            const bool together = row.contains("attention_gradients");
            for (const char* kernel :
                 {"attention_forward", together ? "attention_delta" : "attention_query_gradient",
                  together ? "attention_gradients" : "attention_key_value_gradient"}) {
                const Json& pass = row.at(kernel);
                EXPECT_GT(pass.at("predicted_ms"), 0);
                EXPECT_FALSE(pass.contains("measured_ms"));
                for (const char* term : {"memory_ms", "l2_ms", "compute_ms", "latency_ms"}) {
                    EXPECT_LE(pass.at(term), pass.at("predicted_ms")) << row << term;
                }
            }
            // Where wgmma computes blocks of 128 and items have many steps, in one kernel.
            const bool fits =
                target == "sm_90a" && row.at("block") == 128 && row.at("head_dim") >= 64;
            EXPECT_EQ(together, fits && row.at("density") >= 0.05) << row;
        }
        EXPECT_TRUE(outputs.insert(result.out).second) << target << " is as another";
    }
}

TEST(BenchPredicted, PrintsATable) {
    const CommandResult result = run_command("bench predicted --target sm_90a");
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_NE(result.out.find("retrieval"), std::string::npos) << result.out;
    EXPECT_EQ(result.out.find("measured  ratio"), std::string::npos) << result.out;
}

TEST(BenchPredicted, TakesTheCardThatIsNamed) {
    const std::string request = "bench predicted --target sm_90a";
    const CommandResult h100 = run_command(request + " --card h100");
    EXPECT_EQ(h100.exit_code, 0) << h100.err;
    EXPECT_NE(h100.out, run_command(request).out);
    EXPECT_EQ(run_command(request + " --card h200").out, run_command(request).out);
}

TEST(BenchPredicted, RefusesUnknownTargets) {
    expect_refused("bench predicted --target sm_75",
                   {"GPU 'sm_75' is not known", fmt::format("{}", fmt::join(gpu_names(), ", "))});
    expect_refused("bench predicted --target sm_90a --repeat 0", {"--repeat is 0"});
    expect_refused("bench predicted --target sm_90a --card h300",
                   {"card 'h300' is not known", "h100 or h200"});
}

TEST(BenchAttention, TakesTheBackwardThatIsAskedFor) {
    const std::string request =
        "bench attention --device cpu --pattern-random 0.3 --length 128 --block 32 --head-dim 16 "
        "--no-dense --repeat 1 --json --backward ";
    const CommandResult split = run_command(request + "split");
    EXPECT_EQ(split.exit_code, 0) << split.err;
    EXPECT_NE(split.out.find("attention_query_gradient"), std::string::npos) << split.out;
    expect_refused(request + "fused",
                   {"has no kernels for a fused backward: take the split backward"});
    expect_refused(request + "both", {"--backward is 'both': use auto, split or fused"});
}

TEST(BenchAttention, AutotuneKeepsWhatItMeasured) {
    const ScratchFolder folder;
    ASSERT_EQ(setenv("SPION_CACHE_DIR", folder.file("cache").c_str(), 1), 0);
    const auto run = [] {
        return run_command(
            "bench attention --device cpu --pattern-random 0.3 --length 128 --block 32 "
            "--head-dim 16 --no-dense --repeat 1 --autotune --json");
    };
    const CommandResult first = run();
    EXPECT_EQ(first.exit_code, 0) << first.err;
    const std::filesystem::path tuning = folder.file("cache") + "/tuning";
    const auto entries = [&] {
        std::set<std::string> names;
        for (const auto& item : std::filesystem::directory_iterator(tuning)) {
            names.insert(item.path().filename());
        }
        return names;
    };
    const std::set<std::string> kept = entries();
    EXPECT_EQ(kept.size(), 3U);  // forward, dQ, dK and dV
    EXPECT_EQ(run().exit_code, 0);
    EXPECT_EQ(entries(), kept);
    unsetenv("SPION_CACHE_DIR");
}

}  // namespace
}  // namespace spion
