// `spion bench curve` on the host, and the arithmetic of its picture.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "ir/error.h"
#include "tests/support/run_command.h"
#include "tools/curve_picture.h"

namespace spion {
namespace {

using Json = nlohmann::json;

const std::vector<CurvePoint> kPoints = {
    {.block = 64, .density = 1, .forward_ms = 4, .backward_ms = 6},
    {.block = 64, .density = 0.5, .forward_ms = 2, .backward_ms = 3},
    {.block = 32, .density = 0.25, .forward_ms = 3, .backward_ms = 5},
    {.block = 32, .density = 0.75, .forward_ms = 5, .backward_ms = 7},
    {.block = 32, .density = 1, .forward_ms = 6, .backward_ms = 9},
    {.block = 16, .density = 0.1, .forward_ms = 6, .backward_ms = 5}};

TEST(BenchCurve, FindsWhereACurveMeetsDense) {
    EXPECT_EQ(dense_ms(kPoints), 10);
    EXPECT_EQ(break_even(kPoints, 64, 10), 1);
    // 8 ms at .25 and 12 at .75.
    EXPECT_NEAR(break_even(kPoints, 32, 10).value(), 0.5, 1e-12);
    EXPECT_EQ(break_even(kPoints, 16, 10), std::nullopt);
    EXPECT_EQ(break_even(kPoints, 128, 10), std::nullopt);
    try {
        dense_ms(std::vector<CurvePoint>{kPoints[1]});
        ADD_FAILURE() << "there is no dense point";
    } catch (const UserError& error) {
        EXPECT_NE(std::string(error.what()).find("no density is 1"), std::string::npos);
    }
}

TEST(BenchCurve, DrawsACurveABlock) {
    const std::string svg = curve_picture(kPoints, "H<8>");
    EXPECT_NE(svg.find("<title>H&lt;8&gt;</title>"), std::string::npos);
    for (const char* words : {"block 16</text>", "block 32</text>", "block 64</text>",
                              "stroke-dasharray", "dense</text>"}) {
        EXPECT_NE(svg.find(words), std::string::npos) << words;
    }
    // The slowest point, 15 ms, touches the top of the frame; the point of density 0.5 and 5 ms lies
    // a third above its foot.
    EXPECT_NE(svg.find("580.0,34.0"), std::string::npos) << svg;
    EXPECT_NE(svg.find("320.0,234.0"), std::string::npos) << svg;
    EXPECT_EQ(svg.substr(svg.size() - 7), "</svg>\n");
}

TEST(BenchCurve, MeasuresAndDraws) {
    const auto file = std::filesystem::path(testing::TempDir()) / "curve.svg";
    const CommandResult result = run_command(
        "bench curve --json --device cpu --length 128 --heads 1 --head-dim 16 --batch 1 --repeat 1 "
        "--blocks 16,32 --densities 0.25,1 --svg " +
        file.string());
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const Json json = Json::parse(result.out);
    ASSERT_EQ(json.at("points").size(), 4U);
    EXPECT_EQ(json.at("points")[0].at("block"), 16);
    EXPECT_NEAR(json.at("points")[0].at("density"), 0.25, 0.05);
    EXPECT_EQ(json.at("points")[3].at("density"), 1);
    EXPECT_GT(json.at("points")[3].at("backward_ms"), 0);
    EXPECT_EQ(json.at("break_even").size(), 2U);
    EXPECT_GT(json.at("dense_ms"), 0);
    std::ifstream stream(file);
    const std::string svg{std::istreambuf_iterator<char>(stream), {}};
    EXPECT_NE(svg.find("B=1 H=1 L=128 D=16 fp32"), std::string::npos) << svg;
    std::filesystem::remove(file);
    const CommandResult table = run_command(
        "bench curve --device cpu --length 64 --heads 1 --head-dim 16 --batch 1 --repeat 1 "
        "--blocks 16 --densities 0.25,1");
    ASSERT_EQ(table.exit_code, 0) << table.err;
    EXPECT_NE(table.out.find("blocks of 16 are faster than that"), std::string::npos) << table.out;
}

TEST(BenchCurve, SaysWhatIsWrong) {
    expect_refused("bench curve --device cpu --densities 0.5,0.9", {"--densities have no 1"});
    expect_refused("bench curve --device cpu --densities 0,1", {"one of --densities is 0"});
    expect_refused("bench curve --device cpu --repeat 0", {"--repeat is 0"});
    expect_refused("bench curve --device cpu --svg /nowhere/at/all/x.svg", {"cannot be written"});
    expect_refused("bench curve --device cpu --blocks 24 --densities 1 --length 64", {"24"});
}

}  // namespace
}  // namespace spion
