// The worked example of docs/ir.md is what the compiler makes. SPION_UPDATE_GOLDENS rewrites it.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "codegen/emit.h"
#include "compiler/passes/pipeline.h"
#include "ir/parser.h"
#include "tests/support/lower_planned.h"

namespace spion {
namespace {

const std::string kPath = std::string(SPION_SOURCE_ROOT) + "/docs/ir.md";

std::string document() {
    std::ifstream file(kPath, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

struct Fenced {
    std::size_t begin, end;  // of what stands between the fences
};

Fenced find_fenced(const std::string& text, const std::string& info) {
    const std::string fence = fmt::format("\n```{}\n", info);
    const std::size_t begin = text.find(fence) + fence.size();
    EXPECT_NE(text.find(fence), std::string::npos) << info;
    return {begin, text.find("```\n", begin)};
}

std::string fenced(const std::string& info) {
    const std::string text = document();
    const Fenced place = find_fenced(text, info);
    return text.substr(place.begin, place.end - place.begin);
}

void expect_fenced(const std::string& info, const std::string& made) {
    if (std::getenv("SPION_UPDATE_GOLDENS") != nullptr) {
        std::string text = document();
        const Fenced place = find_fenced(text, info);
        text.replace(place.begin, place.end - place.begin, made);
        std::ofstream(kPath, std::ios::binary) << text;
    }
    EXPECT_EQ(fenced(info), made);
}

TileProgram example() {
    const IrModule ir = parse_ir(fenced("ir module"), "docs/ir.md");
    EXPECT_EQ(to_text(ir), fenced("ir module"));
    return lower(*ir.attention, *ir.pattern, KernelRole::kForward, cuda_target(90));
}

TEST(IrDocument, TheExampleIsWhatLowersToday) {
    expect_fenced("ir program", to_text(example()));
}

#ifdef SPION_CUDA_BACKEND
TEST(IrDocument, TheExampleIsWhatIsEmittedToday) {
    expect_fenced("cuda", emit(example(), cuda_target(90)).text);
}
#endif

TEST(IrDocument, EveryPassIsInTheTable) {
    const std::string text = document();
    for (const Pass& pass : pipeline()) {
        EXPECT_NE(text.find(fmt::format("| `{}` |", pass.name)), std::string::npos) << pass.name;
    }
}

}  // namespace
}  // namespace spion
