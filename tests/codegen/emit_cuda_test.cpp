// The text that is emitted for CUDA: goldens, literals, includes, refusals.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>

#include "codegen/emit.h"
#include "ir/error.h"
#include "ir/parser.h"
#include "kernels/embedded.h"
#include "tests/support/expect_error.h"

namespace spion {
namespace {

std::string read(const std::string& path) {
    std::ifstream file(path);
    EXPECT_TRUE(file) << path;
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
}

TileProgram small_program() {
    return {.role = KernelRole::kForward,
            .attention = {.heads = 2,
                          .head_dim = 32,
                          .length = 100,
                          .dtype = DType::kBf16,
                          .scale = 0.17677669F,
                          .softmax = SoftmaxKind::kPrunedZero,
                          .key_padding = true},
            .block = 32,
            .stationary_rows = 32,
            .streamed_rows = 64,
            .gather_rows = 32,
            .warps = 2,
            .stages = 2,
            .order = {1, 0, 2, 3},
            .offsets = {0, 3, 4, 5, 5},
            .gather_blocks = {0, 1, 3, 0, 2}};
}

// Run with SPION_UPDATE_GOLDENS set to write what is emitted now.
void expect_golden(const std::string& name, const std::string& text) {
    const std::string path = std::string(SPION_TEST_DATA) + "/goldens/" + name;
    if (std::getenv("SPION_UPDATE_GOLDENS") != nullptr) std::ofstream(path) << text;
    EXPECT_EQ(text, read(path)) << path;
}

TEST(EmitCuda, ForwardReadsAsItsGolden) {
    const KernelSource source = emit(small_program(), cuda_target(90));
    expect_golden("attention_forward.cu", source.text);
    EXPECT_EQ(source.name, "attention_forward-b32-D32-bf16-pruned_zero");
    EXPECT_EQ(source.entry, "attention_forward");
    EXPECT_EQ(source.ir, to_text(small_program()));
}

TEST(EmitCuda, ScoreSummaryReadsAsItsGolden) {
    const ScoreSummaryProgram program{.attention = {.heads = 4,
                                                    .head_dim = 128,
                                                    .length = 1024,
                                                    .dtype = DType::kFp32,
                                                    .scale = 0.088388346F,
                                                    .softmax = SoftmaxKind::kMasked},
                                      .block = 128,
                                      .filter = 31,
                                      .tile = 64};
    expect_golden("score_summary.cu", emit(program, cuda_target(86)).text);
    EXPECT_EQ(parse_ir(emit(program, cuda_target(86)).ir, "ir").summaries, std::vector{program});
    // 99 KiB hold one stage of 64 KiB, 227 KiB two.
    EXPECT_EQ(geometry(program, cuda_target(86)).shared_bytes, 65536);
    EXPECT_EQ(geometry(program, cuda_target(90)).shared_bytes, 131072);
    EXPECT_EQ(geometry(program, cuda_target(90)).threads, 128);
}

TEST(EmitCuda, WideHeadsMakeTheirGradientsApart) {
    TileProgram program = small_program();
    program.role = KernelRole::kKeyValueGradient;
    const auto body = [&](int head_dim, DType dtype) {
        program.attention.head_dim = head_dim;
        program.attention.dtype = dtype;
        const KernelSource source = emit(program, cuda_target(90));
        EXPECT_EQ(source.entry, "attention_key_value_gradient");
        const std::size_t at = source.text.rfind("#include \"");
        return source.text.substr(at);
    };
    const std::string body_of = "#include \"kernels/cuda/sm80/attention_key_value_gradient";
    const std::string at_once = body_of + ".cuh\"\n", dv_then_dk = body_of + "_dv_then_dk.cuh\"\n";
    EXPECT_EQ(body(128, DType::kTf32), at_once);
    EXPECT_EQ(body(144, DType::kTf32), dv_then_dk);
    EXPECT_EQ(body(160, DType::kBf16), at_once);
    EXPECT_EQ(body(176, DType::kFp16), dv_then_dk);
    program.role = KernelRole::kQueryGradient;
    EXPECT_NE(emit(program, cuda_target(90)).text.find("sm80/attention_query_gradient.cuh"),
              std::string::npos);
}

TEST(EmitCuda, TextDoesNotDependOnTheWalk) {
    TileProgram other = small_program();
    other.gather_blocks = {0, 1, 2, 0, 2};
    const KernelSource a = emit(small_program(), cuda_target(80));
    const KernelSource b = emit(other, cuda_target(80));
    EXPECT_EQ(a.text, b.text);
    EXPECT_NE(a.ir, b.ir);
    other.attention.softmax = SoftmaxKind::kMasked;
    EXPECT_NE(a.text, emit(other, cuda_target(80)).text);
}

TEST(EmitCuda, ExpressionsAreFunctionsOfTheSource) {
    TileProgram program = small_program();
    EXPECT_EQ(emit(program, cuda_target(90)).text.find("Expression"), std::string::npos);
    program.attention.score = "2 * tanh(score / 8) + q";
    const std::string text = emit(program, cuda_target(90)).text;
    EXPECT_NE(text.find(" score=2*tanh(score/8)+q\n"), std::string::npos) << text;
    for (const char* line :
         {"\n#define SPION_SCORE_EXPRESSION  // of a natural score, and its derivative by it\n"
          "struct ScoreExpression {\n",
          " n3 = score * (1.0F / 8.0F);\n", " = F::tanh(n3);\n", " = 2.0F * n4;\n",
          " n7 = n5 + q;\n", "        changed = n7;\n", "        slope = n"}) {
        EXPECT_NE(text.find(line), std::string::npos) << line << "\n" << text;
    }
    EXPECT_LT(text.find("changed = "), text.find("#include"));
    // The text, and so the cache's key, is of the tree, whatever was written.
    TileProgram same = program;
    same.attention.score = "(2.0f*tanh((score)/8))+q";
    EXPECT_EQ(emit(same, cuda_target(90)).text, text);
    TileProgram other = program;
    other.attention.score = "2 * tanh(score / 9) + q";
    EXPECT_NE(emit(other, cuda_target(90)).text, text);
    other = program;
    other.attention.score_derivative = "(1 - tanh(score / 8) * tanh(score / 8)) / 4";
    EXPECT_NE(emit(other, cuda_target(90)).text, text);
    other.attention.score_derivative = "0.25";
    expect_error<UserError>([&] { check(other.attention); }, "is not the derivative of score");
}

TEST(EmitCuda, BakedTablesAreConstantsOfTheSource) {
    TileProgram program = small_program();
    const std::string passed = emit(program, cuda_target(90)).text;
    EXPECT_EQ(passed.find("SPION_BAKED_TABLES"), std::string::npos);
    program.tables = Tables::kBaked;
    const KernelSource source = emit(program, cuda_target(90));
    EXPECT_EQ(source.name, "attention_forward-b32-D32-bf16-pruned_zero-baked");
    EXPECT_NE(source.text.find("\n#define SPION_BAKED_TABLES\n"
                               "enum : int { kTiles = 4 };  // work items of one (b, h)\n"
                               "enum : int { kListed = -1 };"),
              std::string::npos)
        << source.text;
    for (const char* line :
         {"enum : int { kSteps = -1 };", "using GatherBlockIndex = unsigned short;",
          "static __constant__ const unsigned short kOrder[] = {\n    1, 0, 2, 3};",
          "static __constant__ const unsigned short kOffsets[] = {\n    0, 3, 4, 5, 5};",
          "static __device__ const unsigned short kGatherBlocks[] = {\n    0, 1, 3, 0, 2};"}) {
        EXPECT_NE(source.text.find(line), std::string::npos) << line << "\n" << source.text;
    }
    EXPECT_LT(source.text.find("kGatherBlocks[]"), source.text.find("#include"));
    TileProgram other = program;
    other.gather_blocks = {0, 1, 2, 0, 2};
    EXPECT_NE(emit(other, cuda_target(90)).text, source.text);
    other.gather_blocks.back() = 65536;  // beyond 16 bits
    EXPECT_NE(emit(other, cuda_target(90)).text.find("using GatherBlockIndex = int;"),
              std::string::npos);
}

TEST(EmitCuda, PackedTilesSaySo) {
    TileProgram program = small_program();
    EXPECT_EQ(emit(program, cuda_target(90)).text.find("SPION_PACKED_ROWS"), std::string::npos);
    program.stationary_rows = 64;
    program.warps = 4;
    program.order = {1, 0};
    program.offsets = {0, 3, 5};
    program.block_row_masks = {1, 3, 2, 3, 1};
    const KernelSource source = emit(program, cuda_target(90));
    EXPECT_EQ(source.name, "attention_forward-b32-D32-bf16-pruned_zero-packed");
    EXPECT_NE(source.text.find("\n#define SPION_PACKED_ROWS 2  // block rows of a tile\n"),
              std::string::npos)
        << source.text;
    // What is multiplied at once lies in one gather block.
    EXPECT_NE(source.text.find("enum : int { kColumns = 32 };"), std::string::npos);
    EXPECT_EQ(source.text.find("kBlockRowMasks"), std::string::npos);
    program.tables = Tables::kBaked;
    const std::string baked = emit(program, cuda_target(90)).text;
    EXPECT_NE(baked.find("using BlockRowMask = unsigned char;\nstatic __device__ const "
                         "BlockRowMask kBlockRowMasks[] = "
                         "{\n    1, 3, 2, 3, 1};\n"),
              std::string::npos)
        << baked;
}

TEST(EmitCuda, BakedTripCountsAreConstantWhereAllRowsAreAlike) {
    TileProgram program = small_program();
    program.tables = Tables::kBaked;
    const auto has = [&](const char* line) {
        return emit(program, cuda_target(90)).text.find(line) != std::string::npos;
    };
    program.offsets = {0, 3, 6, 9, 12};  // 2 steps of 2 gather blocks each
    program.gather_blocks = {0, 1, 3, 0, 1, 2, 0, 1, 3, 0, 2, 3};
    EXPECT_TRUE(has("kListed = 3 };"));
    EXPECT_TRUE(has("kSteps = -1 };"));  // lengths decide
    program.attention.key_padding = false;
    EXPECT_TRUE(has("kSteps = 2 };"));
    program.offsets = {0, 3, 6, 9, 13};  // as many steps, though not as many gather blocks
    program.gather_blocks = {0, 1, 3, 0, 1, 2, 0, 1, 3, 0, 1, 2, 3};
    EXPECT_TRUE(has("kListed = -1 };"));
    EXPECT_TRUE(has("kSteps = 2 };"));
    program.offsets = {0, 2, 6, 9, 13};
    EXPECT_TRUE(has("kSteps = -1 };"));
}

TEST(EmitCuda, TooLargeTablesAreNotBaked) {
    TileProgram program = small_program();
    program.tables = Tables::kBaked;
    const auto extra = static_cast<std::size_t>(kMostBakedEntries) - 4 - 5;
    program.offsets.back() = static_cast<int>(extra);
    program.gather_blocks.assign(extra, 0);
    EXPECT_EQ(why_not_baked(program), "");
    EXPECT_NO_THROW(emit(program, cuda_target(90)));
    program.gather_blocks.push_back(0);
    ++program.offsets.back();
    EXPECT_EQ(why_not_baked(program), "its tables have 32769 entries, and 32768 at most are baked");
    expect_error<UserError>([&] { emit(program, cuda_target(90)); },
                            "attention_forward cannot have its pattern in the source: its tables "
                            "have 32769 entries, and 32768 at most are baked; pass it as tables");
    program.tables = Tables::kPassed;
    EXPECT_NO_THROW(emit(program, cuda_target(90)));
}

TEST(EmitCuda, IncludesAreAllThatTheTextReaches) {
    const KernelSource source = emit(small_program(), cuda_target(90));
    ASSERT_FALSE(source.includes.empty());
    EXPECT_EQ(source.includes.front().name, "kernels/cuda/sm80/attention_forward.cuh");
    std::set<std::string> names;
    for (const SourceFile& file : source.includes) {
        EXPECT_TRUE(names.insert(file.name).second) << file.name << " twice";
        EXPECT_EQ(file.text, find_embedded(file.name)->text);
    }
    const std::regex directive("#include (.*)");
    for (const SourceFile& file : source.includes) {
        for (std::sregex_iterator at(file.text.begin(), file.text.end(), directive), end; at != end;
             ++at) {
            const std::string name = (*at)[1];
            ASSERT_EQ(name.front(), '"') << file.name << " includes a system header";
            EXPECT_TRUE(names.count(name.substr(1, name.size() - 2))) << file.name << ": " << name;
        }
    }
}

TEST(EmitCuda, ConstantsBecomeLiteralsOfTheirType) {
    const auto text = [](decltype(Constant::value) value) {
        const std::vector<Constant> constants{{.name = "kX", .value = value, .comment = ""}};
        const std::string all =
            specialise(cuda_target(80), "name", "sm80/attention_forward", "entry", constants, "")
                .text;
        const std::size_t begin = all.find("\n\n") + 2;
        return all.substr(begin, all.find('\n', begin) - begin);
    };
    EXPECT_EQ(text(true), "enum : bool { kX = true };");
    EXPECT_EQ(text(std::int64_t{-3}), "enum : int { kX = -3 };");
    EXPECT_EQ(text(std::int64_t{1} << 40), "enum : long long { kX = 1099511627776 };");
    EXPECT_EQ(text(1.0F), "#define kX 1.0F");
    EXPECT_EQ(text(0.1F), "#define kX 0.100000001F");
    EXPECT_EQ(text(1e-20F), "#define kX 9.99999968e-21F");
    EXPECT_EQ(text(-0.5F), "#define kX (-0.5F)");
    EXPECT_EQ(text(std::string("Bf16")), "using kX = struct Bf16;");
}

TEST(EmitCuda, RefusesWhatTheIrCanSayButNoBodyDoes) {
    const Target target = cuda_target(90);
    TileProgram wgmma = small_program();
    wgmma.unit = MatrixUnit::kWgmma;
    expect_error<UserError>([&] { emit(wgmma, target); }, "unit=mma_sync");
}

TEST(EmitCuda, WarpsWithItemsOfTheirOwnAreSaidAllTheyNeed) {
    TileProgram program = small_program();
    program.unit = MatrixUnit::kMmaSyncTma;
    program.warps = 1;
    program.block = program.stationary_rows = program.gather_rows = program.streamed_rows = 32;
    program.attention.head_dim = 64;
    program.attention.dtype = DType::kFp16;
    program.attention.length = 32 * program.tiles();
    program.stages = 2;
    const Target target = cuda_target(90);
    const std::string text = emit(program, target).text;
    EXPECT_NE(text.find("enum : int { kStationaryRows = 32 };"), std::string::npos) << text;
    EXPECT_NE(text.find("enum : int { kWarps = 4 };"), std::string::npos) << text;
    EXPECT_NE(text.find("#include \"kernels/cuda/sm90/warp_attention_forward.cuh\""),
              std::string::npos)
        << text;
    // A consumer: Q, two stages of K and V, [32, 64] each; a plan, barriers of 16 bytes for each.
    EXPECT_EQ(geometry(program, target).shared_bytes, 4 * (5 * 4096 + 16 + 3 * 16));
    EXPECT_EQ(geometry(program, target).threads, 256);
    program.attention.head_dim = 128;
    expect_error<UserError>([&] { emit(program, target); }, "D and Dv of at most 64");
    program.attention.head_dim = 64;
    program.stages = 16;
    expect_error<UserError>([&] { emit(program, target); }, "does not fit sm_90a");
    expect_error<UserError>([&] { emit(program, cuda_target(80)); }, "unit=mma_sync");
}

TEST(EmitCuda, SaysWhetherAllStepsAreFull) {
    TileProgram program = small_program();
    EXPECT_NE(emit(program, cuda_target(90)).text.find("kStepsAreFull = false"), std::string::npos);
    program.attention.key_padding = false;
    program.attention.length = 128;
    program.streamed_rows = 32;
    EXPECT_NE(emit(program, cuda_target(90)).text.find("kStepsAreFull = true"), std::string::npos);
}

TEST(EmitCuda, RefusesWhatTheBodiesCannotDo) {
    const Target target = cuda_target(90);
    TileProgram program = small_program();
    program.warps = 4;
    expect_error<UserError>([&] { emit(program, target); }, "take 16 rows a warp");
    program = small_program();
    program.streamed_rows = 96;
    expect_error<UserError>([&] { geometry(program, target); }, "streamed_rows=96");
    expect_error<InternalError>([&] { specialise(target, "n", "no_such_body", "e", {}, ""); },
                                "no file named 'kernels/cuda/no_such_body.cuh'");
    const ScoreSummaryProgram summary{.attention = small_program().attention, .tile = 48};
    expect_error<InternalError>([&] { emit(summary, target); }, "tile 48 in block 64");
}

}  // namespace
}  // namespace spion
