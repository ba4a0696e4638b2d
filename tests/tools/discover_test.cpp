// `spion discover` through the command line that tools/main.cpp builds.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <numeric>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "compiler/discovery/discover.h"
#include "io/array_file.h"
#include "io/npy.h"
#include "io/pattern_file.h"
#include "io/safetensors.h"
#include "ir/block_pattern.h"
#include "ir/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/random_case.h"
#include "tests/support/reference_discovery.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/seed.h"
#include "tools/commands.h"

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
            "scores of shape (32, 16) are not square maps: give (L, L), (H, L, L) or (B, H, L, L)");
    refuses({2, 16, 8}, std::vector<float>(256), "scores of shape (2, 16, 8) are not square maps");
    refuses({256}, std::vector<float>(256), "scores of shape (256,) are not square maps");
    refuses({1, 1, 1, 16, 16}, std::vector<float>(256), "scores of shape (1, 1, 1, 16, 16) are");
    refuses({0, 0}, {}, "scores of shape (0, 0) are not square maps");
    std::vector<float> values(256);
    values[35] = std::numeric_limits<float>::quiet_NaN();
    refuses({16, 16}, values, "score [2, 3] is nan: give finite scores");
    values[35] = std::numeric_limits<float>::infinity();
    refuses({16, 16}, values, "score [2, 3] is inf");
    refuses({1, 16, 16}, values, "score [0, 2, 3] is inf");
    refuses({1, 1, 16, 16}, values, "score [0,0, 2, 3] is inf");
    const std::string masked = write_map(
        folder, {16, 16}, std::vector<float>(256, -std::numeric_limits<float>::infinity()));
    expect_error<UserError>([&] { run("discover " + masked); }, "every score is masked (-inf)");
    expect_error<UserError>([&] { run("discover " + folder.file("none.npy")); },
                            "none.npy cannot be read");
    const std::string text = folder.write("scores.npy", "0.1 0.2\n0.3 0.4\n");
    expect_error<UserError>([&] { run("discover " + text); }, "is not a .npy, .npz or .saf");
    const std::string empty = folder.write("empty.npy", "");
    expect_error<UserError>([&] { run("discover " + empty); }, "empty.npy is empty");
}

// NumPy's nan functions, with NaN for masked, found the same: causal maps, and padded samples.
TEST(DiscoverCommand, LeavesMaskedScoresOut) {
    std::ifstream file(SPION_IO_GOLDENS "/masked.json");
    const nlohmann::json golden = nlohmann::json::parse(file);
    const std::string command = std::string("discover " SPION_IO_GOLDENS "/masked.npz") +
                                " --block " + golden["block"].dump() + " --filter " +
                                golden["filter"].dump() + " --quantile " +
                                golden["quantile"].dump() + " --format json";
    for (const char* map : {"mean", "0,0", "0,1", "1,0", "1,1"}) {
        SCOPED_TRACE(map);
        const nlohmann::json json = nlohmann::json::parse(run(command + " --maps " + map));
        EXPECT_EQ(json["pattern"], golden[map]["pattern"]);
        EXPECT_NEAR(json["threshold"], golden[map]["threshold"], 1e-12);
        EXPECT_EQ(json.value("map", "mean"), map);
    }
    const nlohmann::json each = nlohmann::json::parse(run(command + " --maps each"));
    ASSERT_EQ(each.size(), 4U);
    for (const nlohmann::json& one : each) {
        EXPECT_EQ(one["pattern"], golden[std::string(one["map"])]["pattern"]);
    }
    expect_error<UserError>([&] { run(command + " --maps 2,0"); },
                            "--maps 2,0 is not known for scores of shape (2, 2, 72, 72): use mean, "
                            "each, or one map's sample and head as B,H counted from 0");
}

// Above the diagonal nothing is found in a causal map, whatever the rest looks like.
TEST(DiscoverCommand, SetsNoBlockThatIsWhollyMasked) {
    const ScratchFolder folder;
    std::vector<float> values(64 * 64);
    for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = i % 64 > i / 64 ? -std::numeric_limits<float>::infinity() : -5.0F;
    }
    const std::string path = write_map(folder, {64, 64}, values);
    for (const char* variant : {"cf --quantile 0", "f --quantile 0", "c --density 1"}) {
        const std::string bits = run("discover " + path + " --block 16 --variant " + variant);
        for (std::size_t row = 0; row < 4; ++row) {
            for (std::size_t column = row + 1; column < 4; ++column) {
                EXPECT_EQ(bits[row * 5 + column], '0') << variant << "\n" << bits;
            }
        }
    }
}

// The same map in other types, orders and files gives the same pattern.
TEST(DiscoverCommand, TakesOneMapInEveryForm) {
    const nlohmann::json golden = goldens()[3];
    const std::string scores = SPION_GOLDENS "/" + std::string(golden["scores"]);
    const std::string options = options_of(golden);
    const std::string bits = run("discover " + scores + options);
    const ScratchFolder folder;
    const std::vector<double> doubles = open_array(scores).values();
    const std::vector<float> values(doubles.begin(), doubles.end());
    const auto length = static_cast<std::int64_t>(std::sqrt(values.size()));
    const std::string three = write_map(folder, {1, length, length}, values);
    EXPECT_EQ(run("discover " + three + options), bits);
    EXPECT_EQ(run("discover " + three + options + " --maps each"), bits);
    EXPECT_EQ(run("discover " + three + options + " --maps 0"), bits);
    const std::string tensors = folder.file("maps.safetensors");
    const std::vector<NamedTensor> named{
        {.name = "layer.0", .shape = {length, length}, .values = values}};
    write_safetensors(tensors, named);
    EXPECT_EQ(run("discover " + tensors + ":layer.0" + options), bits);
    const std::string command = SPION_COMMAND;
    const auto shell = [&](const std::string& line) {
        const std::string out = folder.file("out");
        EXPECT_EQ(std::system((line + " >" + out).c_str()), 0) << line;
        std::ifstream file(out, std::ios::binary);
        return std::string(std::istreambuf_iterator<char>(file), {});
    };
    EXPECT_EQ(shell(command + " discover -" + options + " <" + scores), bits);
    EXPECT_EQ(shell("cat " + scores + " | " + command + " discover -" + options), bits);
}

TEST(DiscoverCommand, PrintsAPatternAMap) {
    const ScratchFolder folder;
    std::vector<float> values(3 * 32 * 32);
    for (std::size_t i = 16; i < 32; ++i) {  // head 1, the lower left block
        std::fill_n(values.begin() + static_cast<std::ptrdiff_t>(1024 + 32 * i), 16, 1.0F);
    }
    const std::string path = write_map(folder, {3, 32, 32}, values);
    const std::string bits = run("discover " + path + " --block 16 --quantile 0.4 --maps each");
    EXPECT_EQ(bits, "10\n01\n\n10\n11\n\n10\n01\n");
    EXPECT_NE(
        run("discover " + path + " --block 16 --maps each --format art").find("map=2 length="),
        std::string::npos);
}

// What `command` says on standard error.
std::string told_by(const std::string& command) {
    testing::internal::CaptureStderr();
    run(command);
    return testing::internal::GetCapturedStderr();
}

// Whole numbers, and powers of two of samples and query heads, so that sums and means are exact.
TEST(DiscoverCommand, FindsAPatternAHead) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    for (int round = 0; round < 8; ++round) {
        const ScratchFolder folder;
        const int batch = 1 << pick(random, 0, 2), group = 1 << pick(random, 0, 1);
        const int patterns = pick(random, 1, 3), heads = patterns * group;
        const int block = 16, length = pick(random, 17, 100), filter = pick(random, 1, 20);
        const double q = std::uniform_real_distribution<double>(0.3, 0.9)(random);
        const std::size_t size = static_cast<std::size_t>(length) * length;
        std::vector<float> values(batch * heads * size);
        for (float& value : values) value = static_cast<float>(pick(random, 0, 255));
        const bool batched = batch > 1;
        std::vector<std::int64_t> shape = {batch, heads, length, length};
        if (!batched) shape.erase(shape.begin());
        const std::string command =
            fmt::format("discover {} --per-head --block {} --filter {} --quantile {}",
                        write_map(folder, shape, values), block, filter, q) +
            (group > 1 ? fmt::format(" --kv-heads {}", patterns) : "");
        const nlohmann::json found = nlohmann::json::parse(run(command + " --format json"));
        ASSERT_EQ(found.size(), static_cast<std::size_t>(patterns));
        std::string all;
        std::vector<double> counts;
        for (int pattern = 0; pattern < patterns; ++pattern) {
            std::vector<double> mean(size);
            for (int map = 0; map < batch * heads; ++map) {
                if (map % heads / group != pattern) continue;
                for (std::size_t i = 0; i < size; ++i) {
                    mean[i] += double{values[map * size + i]} / (batch * group);
                }
            }
            const std::vector<double> pooled = reference_pooled(mean, length, block, filter);
            const std::string bits = reference_pattern(pooled, reference_threshold(pooled, q));
            std::string given;
            for (const std::string row : found[pattern]["pattern"]) given += row + "\n";
            EXPECT_EQ(given, bits) << command;
            EXPECT_EQ(found[pattern]["map"], std::to_string(pattern));
            counts.push_back(static_cast<double>(std::count(bits.begin(), bits.end(), '1')));
            all += (all.empty() ? "" : "\n") + bits;
        }
        EXPECT_EQ(run(command), all);
        if (patterns == 1) continue;
        const double mean = std::accumulate(counts.begin(), counts.end(), 0.0) / patterns;
        const double balance = *std::max_element(counts.begin(), counts.end()) / mean;
        EXPECT_NE(
            told_by(command).find(fmt::format("the fullest has {:.2f} times the mean", balance)),
            std::string::npos)
            << told_by(command);
    }
}

// The file is what --pattern-heads takes.
TEST(DiscoverCommand, WritesHeadsThatOtherCommandsTake) {
    const ScratchFolder folder;
    std::vector<float> values(2 * 32 * 32);
    for (std::size_t i = 16; i < 32; ++i) {  // head 1, the lower left block
        std::fill_n(values.begin() + static_cast<std::ptrdiff_t>(1024 + 32 * i), 16, 1.0F);
    }
    const std::string path = write_map(folder, {2, 32, 32}, values);
    const std::string command = "discover " + path + " --block 16 --quantile 0.4 --per-head";
    const std::string file = folder.write("heads.json", run(command + " --format json"));
    EXPECT_EQ(open_pattern(file + ":0", {}).pattern.to_bits(), "10\n01\n");
    EXPECT_EQ(open_pattern(file + ":1", {}).pattern.to_bits(), "10\n11\n");
    EXPECT_EQ(told_by(command),
              "spion: 2 patterns, densities 0.5000 to 0.7500, mean 0.6250, the fullest has 1.20 "
              "times the mean\n");
    EXPECT_NE(run(command + " --format art").find("map=1 length="), std::string::npos);
}

TEST(DiscoverCommand, RefusesHeadsThatAreNotThere) {
    const ScratchFolder folder;
    const std::string one = write_map(folder, {32, 32}, std::vector<float>(1024));
    expect_error<UserError>([&] { run("discover " + one + " --per-head"); },
                            "scores of shape (32, 32) are one map, and --per-head finds a pattern "
                            "in those of each head: give (H, L, L) or (B, H, L, L)");
    const std::string heads = write_map(folder, {3, 32, 32}, std::vector<float>(3 * 1024));
    expect_error<UserError>(
        [&] { run("discover " + heads + " --per-head --maps each"); },
        "--per-head takes the mean of each head's maps: leave --maps each away");
    expect_error<UserError>([&] { run("discover " + heads + " --per-head --kv-heads 2"); },
                            "--kv-heads is 2, but " + heads + " has 3 heads: give a number that");
    expect_error<UserError>([&] { run("discover " + heads + " --per-head --kv-heads -3"); },
                            "--kv-heads is -3");
    expect_error<UserError>([&] { run("discover " + heads + " --kv-heads 3"); },
                            "--kv-heads says how many patterns --per-head finds: give both");
}

TEST(DiscoverCommand, NeedsAScoreMap) {
    EXPECT_THROW(run("discover --block 16"), CLI::RequiredError);
}

}  // namespace
}  // namespace spion
