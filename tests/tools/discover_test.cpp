// `spion discover` through the command line that tools/main.cpp builds.
#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "compiler/discovery/discover.h"
#include "ir/block_pattern.h"
#include "ir/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/scratch_folder.h"
#include "tools/commands.h"
#include "tools/npy.h"

namespace spion {
namespace {

// Runs `spion <arguments>`, blank-separated; returns what it printed.
std::string run(const std::string& arguments) {
    CLI::App app;
    int exit_code = 0;
    add_discover(app, &exit_code);
    testing::internal::CaptureStdout();
    try {
        app.parse(arguments);
    } catch (...) {
        testing::internal::GetCapturedStdout();
        throw;
    }
    EXPECT_EQ(exit_code, 0);
    return testing::internal::GetCapturedStdout();
}

std::string options_of(const nlohmann::json& golden) {
    return " --block " + golden["block"].dump() + " --filter " + golden["filter"].dump() +
           " --quantile " + golden["quantile"].dump() + " --density " + golden["density"].dump() +
           " --variant " + std::string(golden["variant"]);
}

nlohmann::json goldens() {
    std::ifstream file(SPION_GOLDENS "/cases.json");
    return nlohmann::json::parse(file);
}

TEST(DiscoverCommand, PrintsTheGoldensBitsAndNothingElse) {
    for (const nlohmann::json& golden : goldens()) {
        const std::string scores = SPION_GOLDENS "/" + std::string(golden["scores"]);
        std::string expected;
        for (const std::string row : golden["pattern"]) {
            expected += row + "\n";
        }
        SCOPED_TRACE(scores + options_of(golden));
        EXPECT_EQ(run("discover " + scores + options_of(golden) + " --format bits"), expected);
        EXPECT_EQ(run("discover " + scores + options_of(golden)), expected);  // the default format
    }
}

TEST(DiscoverCommand, PrintsJson) {
    for (const nlohmann::json& golden : goldens()) {
        const std::string scores = SPION_GOLDENS "/" + std::string(golden["scores"]);
        const nlohmann::json json = nlohmann::json::parse(
            run("discover " + scores + options_of(golden) + " --format json"));
        EXPECT_EQ(json["block"], golden["block"]);
        EXPECT_EQ(json["nb"], golden["pattern"].size());
        EXPECT_EQ(json["length"], golden["pattern"].size() * std::size_t(golden["block"]));
        EXPECT_EQ(json["variant"], golden["variant"]);
        EXPECT_EQ(json["pattern"], golden["pattern"]);
        EXPECT_DOUBLE_EQ(json["threshold"], golden["threshold"]);
        const double nb = json["nb"];
        EXPECT_DOUBLE_EQ(json["density"], double(golden["blocks"]) / (nb * nb));
        EXPECT_EQ(json.size(), 7U);
    }
}

TEST(DiscoverCommand, PrintsAPicture) {
    const nlohmann::json golden = goldens()[3];
    const std::string scores = SPION_GOLDENS "/" + std::string(golden["scores"]);
    const std::string command = "discover " + scores + options_of(golden);
    const BlockPattern pattern = parse_bits(run(command), 256, 16, "stdout");
    EXPECT_EQ(run(command + " --format art"),
              "length=256 block=16 nb=16 blocks=35 density=0.1367\n" + pattern.to_art());
}

std::string write_map(const ScratchFolder& folder, std::vector<std::int64_t> shape,
                      const std::vector<float>& values) {
    const std::string path = folder.file("scores.npy");
    write_npy(path, shape, values);
    return path;
}

TEST(DiscoverCommand, TakesLengthsThatAreNoMultipleOfTheBlock) {
    const ScratchFolder folder;
    const std::string path = write_map(folder, {40, 40}, std::vector<float>(1600, 0.025F));
    const nlohmann::json json =
        nlohmann::json::parse(run("discover " + path + " --block 16 --format json"));
    EXPECT_EQ(json["length"], 40);
    EXPECT_EQ(json["nb"], 3);
    const std::string text = run("discover " + path + " --block 16");
    EXPECT_DOUBLE_EQ(json["density"], parse_bits(text, 40, 16, "stdout").density());
}

TEST(DiscoverCommand, RefusesBadOptions) {
    const ScratchFolder folder;
    const std::string path = write_map(folder, {32, 32}, std::vector<float>(1024));
    const auto refuses = [&](const std::string& options, const std::string& message) {
        expect_error<UserError>([&] { run("discover " + path + " " + options); }, message);
    };
    refuses("--block 48", "block 48 is not allowed: use 16, 32, 64 or 128");
    refuses("--block 0", "block 0 is not allowed");
    refuses("--quantile 1.5", "quantile 1.5 is not allowed: use a number from 0 to 1");
    refuses("--quantile=-0.5", "quantile -0.5 is not allowed");
    refuses("--quantile nan", "quantile nan is not allowed");
    refuses("--density 2", "density 2 is not allowed: use a number from 0 to 1");
    refuses("--filter 0", "filter 0 is not allowed: use an edge of 1 or more");
    refuses("--filter=-3", "filter -3 is not allowed");
    refuses("--variant fc", "variant 'fc' is not known: use cf, f or c");
    refuses("--format png", "format 'png' is not known: use bits, art or json");
}

TEST(DiscoverCommand, RefusesBadScores) {
    const ScratchFolder folder;
    const auto refuses = [&](std::vector<std::int64_t> shape, std::vector<float> values,
                             const std::string& message) {
        const std::string path = write_map(folder, std::move(shape), values);
        expect_error<UserError>([&] { run("discover " + path); }, path + ": " + message);
    };
    refuses({32, 16}, std::vector<float>(512),
            "scores of shape (32, 16) are not a square map: give one of shape (L, L)");
    refuses({1, 16, 16}, std::vector<float>(256), "scores of shape (1, 16, 16) are not a square");
    refuses({256}, std::vector<float>(256), "scores of shape (256) are not a square map");
    refuses({0, 0}, {}, "scores of shape (0, 0) are not a square map");
    std::vector<float> values(256);
    values[35] = std::numeric_limits<float>::quiet_NaN();
    refuses({16, 16}, values, "score [2, 3] is nan: give finite scores");
    values[35] = std::numeric_limits<float>::infinity();
    refuses({16, 16}, values, "score [2, 3] is inf");
    expect_error<UserError>([&] { run("discover " + folder.file("none.npy")); },
                            "none.npy: cannot be read");
    const std::string text = folder.write("scores.npy", "0.1 0.2\n0.3 0.4\n");
    expect_error<UserError>([&] { run("discover " + text); }, "is not a .npy file");
}

TEST(DiscoverCommand, NeedsAScoreMap) {
    EXPECT_THROW(run("discover --block 16"), CLI::RequiredError);
}

}  // namespace
}  // namespace spion
