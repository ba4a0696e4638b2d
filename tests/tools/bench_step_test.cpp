// `spion bench step` on the host: a step taken apart.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "tests/support/run_command.h"

namespace spion {
namespace {

using Json = nlohmann::json;

TEST(BenchStep, CountsEveryLaunchOfAStep) {
    const CommandResult result = run_command(
        "bench step --json --device cpu --task listops --batch 2 --length 256 --repeat 2");
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const Json json = Json::parse(result.out);
    EXPECT_EQ(json.at("phase"), "sparse");
    EXPECT_GT(json.at("step_ms"), 0);
    int launches = 0, products = 0;
    double flop = 0;
    for (const Json& work : json.at("works")) {
        EXPECT_GT(work.at("ms"), 0) << work;
        launches += work.at("launches").get<int>();
        flop += work.at("flop").get<double>();
        const std::string name = work.at("name");
        if (name.starts_with("gemm")) products += work.at("launches").get<int>();
        if (name == "attention_forward" || name == "gelu_dropout_backward") {
            EXPECT_EQ(work.at("launches"), 4) << "four layers";
        }
        if (name == "residual_norm_forward") {
            EXPECT_EQ(work.at("launches"), 9) << "two a layer and the last";
            // Four tensors [512, 64] of fp32.
            EXPECT_EQ(work.at("bytes"), 9 * 4 * 512 * 64 * 4);
        }
        EXPECT_GT(work.at("bytes"), 0) << work;
        constexpr int kHead = 128 * (64 + 1) + 10 * (128 + 1);  // parameters
        if (name == "classifier_forward_backward") {
            // Of two samples: what was pooled and its gradient, the hidden values' and the logits'.
            EXPECT_EQ(work.at("bytes"), 4 * (kHead + 2 * (2 * 64 + 2 * 128 + 10)));
        }
        if (name == "classifier_weight_gradients") {
            EXPECT_EQ(work.at("bytes"), 4 * (kHead + 2 * (64 + 2 * 128 + 10)));
        }
        if (name == "adamw") {
            constexpr int kLayer = 4 * 64 + 4 * (64 * 64 + 64) + 64 * 128 + 128 + 128 * 64 + 64;
            constexpr int kParameters = (32 + 256) * 64 + 4 * kLayer + 2 * 64 + kHead;
            constexpr int kPadding = 6;  // behind the bias of the 10 classes
            EXPECT_EQ(work.at("bytes"), 7 * 4 * (kParameters + kPadding));
            EXPECT_EQ(work.at("needed_bytes"), work.at("bytes"));
        }
    }
    EXPECT_EQ(products, 4 * 12) << "four linear maps a layer, three products each";
    EXPECT_EQ(launches, 116);
    // Three products of N (3 C^2 + C^2 + 2 C F) multiply-adds each a layer.
    EXPECT_EQ(flop, 4.0 * 3 * 2 * 512 * (4 * 64 * 64 + 2 * 64 * 128));
}

TEST(BenchStep, TakesTheTasksSettings) {
    const CommandResult result = run_command(
        "bench step --json --device cpu --batch 1 --length 128 --repeat 1 --dense --task image");
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const Json json = Json::parse(result.out);
    EXPECT_EQ(json.at("task"), "image");
    EXPECT_EQ(json.at("phase"), "dense");
    EXPECT_EQ(json.at("goal_ms"), 0.9);
    int layers = 0;
    for (const Json& work : json.at("works")) {
        if (work.at("name") == "attention_query_gradient") layers = work.at("launches");
    }
    EXPECT_EQ(layers, 2);
}

TEST(BenchStep, TakesOtherWidths) {
    const CommandResult result = run_command(
        "bench step --json --device cpu --batch 1 --length 128 --repeat 1 --heads 3 --head-dim 16 "
        "--feed-forward 96");
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const Json json = Json::parse(result.out);
    double flop = 0;
    for (const Json& work : json.at("works")) {
        flop += work.at("flop").get<double>();
    }
    EXPECT_EQ(flop, 4.0 * 3 * 2 * 128 * (4 * 48 * 48 + 2 * 48 * 96));
    EXPECT_EQ(json.at("fused"), false);
    expect_refused("bench step --device cpu --feed-forward 12", {"a feed-forward width of 12"});
}

// Bytes moved and needed of each launch, their sums last, and by which kernels.
TEST(BenchStep, PrintsATableWithItsSums) {
    const CommandResult result =
        run_command("bench step --device cpu --batch 1 --length 128 --repeat 1");
    ASSERT_EQ(result.exit_code, 0) << result.err;
    std::istringstream lines(result.out);
    double moved = 0, needed = 0, moved_sum = -1, needed_sum = -1;
    int launches = 0, launches_sum = -1;
    bool in_table = false;
    for (std::string line; std::getline(lines, line);) {
        if (line.starts_with("a step")) {
            EXPECT_NE(line.find("MB moved MB needed"), std::string::npos) << line;
            in_table = true;
            continue;
        }
        if (!in_table || line.empty()) {
            in_table = false;
            continue;
        }
        std::istringstream cells(line.substr(34));
        int count = 0;
        double ms = 0, floor = 0, its_moved = 0, its_needed = 0;
        ASSERT_TRUE(cells >> count >> ms >> floor >> its_moved >> its_needed) << line;
        if (line.starts_with("all of them")) {
            launches_sum = count, moved_sum = its_moved, needed_sum = its_needed;
        } else {
            launches += count, moved += its_moved, needed += its_needed;
        }
    }
    EXPECT_EQ(launches, launches_sum);
    EXPECT_NEAR(moved, moved_sum, 1.0);  // of numbers with one digit behind the point
    EXPECT_NEAR(needed, needed_sum, 1.0);
    EXPECT_GT(needed, 1.0);
    EXPECT_GT(moved, needed);
    EXPECT_NE(result.out.find("layers beside attention: general kernels"), std::string::npos)
        << result.out;
    EXPECT_NE(result.out.find("peak device memory: "), std::string::npos) << result.out;
}

TEST(BenchStep, RefusesWhatItCannotMeasure) {
    expect_refused("bench step --device cpu --task text",
                   {"--task is 'text'", "listops, image, retrieval"});
    expect_refused("bench step --device cpu --repeat 0", {"--repeat is 0", "at least 1"});
    expect_refused("bench step --device cpu --batch -1", {"the batch is -1", "at least 1"});
}

}  // namespace
}  // namespace spion
