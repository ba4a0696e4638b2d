// The text that the host emitter writes, and what it refuses.
#include <gtest/gtest.h>

#include <bit>
#include <cstdint>

#include "codegen/emit.h"
#include "codegen/llvm/emit_llvm.h"
#include "ir/error.h"
#include "ir/parser.h"
#include "tests/support/expect_error.h"
#include "tests/support/small_attention.h"

namespace spion {
namespace {

const Target kTarget{.back_end = BackEnd::kHost,
                     .arch = "generic",
                     .features = "",
                     .sm_count = 2,
                     .vector_floats = 8};

// L = 96 in blocks of 32: row 0 streams gather blocks 0 and 2, row 1 nothing, row 2 gather block 1.
TileProgram small_program() {
    return {.role = KernelRole::kForward,
            .attention = small_attention(),
            .block = 32,
            .stationary_rows = 32,
            .streamed_rows = 64,
            .gather_rows = 32,
            .warps = 1,
            .stages = 1,
            .unit = MatrixUnit::kVector,
            .order = {0, 2, 1},
            .offsets = {0, 2, 3, 3},
            .gather_blocks = {0, 2, 1}};
}

bool has_line(const std::string& text, const std::string& start) {
    return ("\n" + text).find("\n" + start) != std::string::npos;
}

TEST(EmitHost, NamesEveryConstantOnce) {
    const KernelSource source = emit(small_program(), kTarget);
    EXPECT_EQ(source.entry, "attention_forward");
    EXPECT_TRUE(has_line(source.text, "@kHeads = constant i32 2 ")) << source.text;
    EXPECT_TRUE(has_line(source.text, "@kHeadDim = constant i32 32 "));
    EXPECT_TRUE(has_line(source.text, "@kLength = constant i32 96 "));
    EXPECT_TRUE(has_line(source.text, "@kSoftmax = constant i32 1 "));
    EXPECT_TRUE(has_line(source.text, "@kKeyPadding = constant i8 0"));
    EXPECT_TRUE(has_line(source.text, "@kStationaryRows = constant i32 32 "));
    EXPECT_TRUE(has_line(source.text, "@kStreamedRows = constant i32 64 "));
    EXPECT_TRUE(has_line(source.text, "@kGatherRows = constant i32 32 "));
    EXPECT_TRUE(has_line(source.text, "@kVectorFloats = constant i32 8 "));
    // A float is the bits of the equal double.
    EXPECT_TRUE(has_line(source.text, "@kScale = constant float 0x3FB99999A0000000  ; 0.1"));
    ASSERT_EQ(source.includes.size(), 1U);
    EXPECT_EQ(source.includes[0].name, "attention_forward.bc");
    EXPECT_EQ(source.includes[0].text.substr(0, 2), "BC");
}

TEST(EmitHost, PatternsOfOneShapeShareTheirText) {
    TileProgram other = small_program();
    other.order = {1, 0, 2};
    other.offsets = {0, 1, 1, 1};
    other.gather_blocks = {2};
    const KernelSource a = emit(small_program(), kTarget), b = emit(other, kTarget);
    EXPECT_EQ(a.text, b.text);
    EXPECT_NE(a.ir, b.ir);
    EXPECT_EQ(a.ir, to_text(small_program()));
    EXPECT_NE(a.text.find("shape block=32 stationary_rows=32"), std::string::npos);
}

TEST(EmitHost, ExpressionsAreFunctionsOfTheSource) {
    TileProgram program = small_program();
    const std::string without = emit(program, kTarget).text;
    EXPECT_TRUE(has_line(without, "@kExpression = constant i8 0"));
    EXPECT_EQ(without.find("define"), std::string::npos);
    program.attention.score = "2 * tanh(score) + q";
    const std::string text = emit(program, kTarget).text;
    EXPECT_TRUE(has_line(text, "@kExpression = constant i8 1"));
    for (const char* line : {"declare void @score_tanh(ptr, ptr)", "define void @express_score(",
                             "  call void @score_number(float 0x4000000000000000, ptr %n0)",
                             "  call void @score_tanh(ptr %score, ptr %n2)",
                             "  call void @score_multiply(ptr %n0, ptr %n2, ptr %n3)",
                             "  call void @score_add(ptr %n3, ptr %q, ptr %n5)",
                             "  call void @score_copy(ptr %n5, ptr %changed)"}) {
        EXPECT_TRUE(has_line(text, line)) << line << "\n" << text;
    }
    TileProgram same = program, other = program;
    same.attention.score = "((2)*tanh(score))+q";
    EXPECT_EQ(emit(same, kTarget).text, text);
    other.attention.score = "2*tanh(score)+k";
    EXPECT_NE(emit(other, kTarget).text, text);
}

TEST(EmitHost, BakedTablesAreConstantsOfTheSource) {
    TileProgram program = small_program();
    program.tables = Tables::kBaked;
    const KernelSource source = emit(program, kTarget);
    EXPECT_EQ(source.includes[0].name, "attention_forward_baked.bc");
    EXPECT_TRUE(has_line(source.text, "@kTiles = constant i32 3 ")) << source.text;
    EXPECT_TRUE(has_line(source.text, "@kListed = constant i32 -1 "));
    EXPECT_TRUE(has_line(source.text,
                         "@kGatherBlocksEntries = constant [3 x i32] [\n    i32 0, i32 2, i32 1]\n"
                         "@kGatherBlocks = constant ptr @kGatherBlocksEntries\n"))
        << source.text;
    EXPECT_EQ(emit(small_program(), kTarget).text.find("kListed"), std::string::npos);
    program.offsets = {0, 1, 2, 3};
    EXPECT_TRUE(has_line(emit(program, kTarget).text, "@kListed = constant i32 1 "));
    program.gather_blocks.assign(static_cast<std::size_t>(kMostBakedEntries), 0);
    expect_error<UserError>([&] { emit(program, kTarget); }, "pass it as tables");
}

TEST(EmitHost, PackedTilesHaveTheLanesOfABlockRow) {
    TileProgram program = small_program();
    EXPECT_TRUE(has_line(emit(program, kTarget).text, "@kPackedRows = constant i32 1 "));
    program.stationary_rows = 2 * program.block;
    program.block_row_masks = {1, 3, 2};
    const KernelSource source = emit(program, kTarget);
    EXPECT_TRUE(has_line(source.text, "@kPackedRows = constant i32 2 "));
    EXPECT_TRUE(has_line(source.text, "@kStationaryRows = constant i32 32 "));
    EXPECT_NE(source.name.find("-packed"), std::string::npos);
    program.tables = Tables::kBaked;
    EXPECT_TRUE(
        has_line(emit(program, kTarget).text,
                 "@kBlockRowMasksEntries = constant [3 x i32] [\n    i32 1, i32 3, i32 2]\n"));
}

TEST(EmitHost, EveryShapeChangesTheText) {
    const std::string text = emit(small_program(), kTarget).text;
    TileProgram other = small_program();
    other.attention.scale = 0.2F;
    EXPECT_NE(emit(other, kTarget).text, text);
    other = small_program();
    other.attention.softmax = SoftmaxKind::kMasked;
    EXPECT_NE(emit(other, kTarget).text, text);
    other = small_program();
    other.streamed_rows = 32;
    EXPECT_NE(emit(other, kTarget).text, text);
    Target wide = kTarget;
    wide.vector_floats = 16;
    EXPECT_NE(emit(small_program(), wide).text, text);
}

TEST(EmitHost, RefusesOtherTypesAndTiles) {
    TileProgram program = small_program();
    program.attention.dtype = DType::kBf16;
    expect_error<UserError>([&] { emit(program, kTarget); },
                            "the CPU back end computes in fp32, not bf16");
    program = small_program();
    program.attention.head_dim = 272;
    expect_error<UserError>(
        [&] { emit(program, kTarget); },
        "head dimension 272 is not supported: use a multiple of 8 from 16 to 256");
    program = small_program();
    program.streamed_rows = 160;
    expect_error<UserError>([&] { emit(program, kTarget); }, "take 128 at most on the host");
    ScoreSummaryProgram summary{
        .attention = small_program().attention, .block = 32, .filter = 66, .tile = 32};
    expect_error<InternalError>([&] { emit(summary, kTarget); }, "filter 66");
    summary.filter = 65;
    EXPECT_EQ(emit(summary, kTarget).entry, "score_summary");
    EXPECT_EQ(parse_ir(emit(summary, kTarget).ir, "ir").summaries, std::vector{summary});
}

TEST(EmitHost, RefusesConstantsThatItCannotWrite) {
    const auto specialise_with = [](Constant constant) {
        specialise_host(kTarget, "name", "score_summary", "score_summary", {constant}, "ir");
    };
    expect_error<InternalError>(
        [&] { specialise_with({.name = "kBig", .value = std::int64_t{1} << 31, .comment = ""}); },
        "kBig = 2147483648 does not fit an int");
    expect_error<InternalError>(
        [&] { specialise_with({.name = "kType", .value = std::string("float"), .comment = ""}); },
        "kType is an identifier");
    expect_error<InternalError>(
        [&] { specialise_host(kTarget, "name", "no_such_body", "entry", {}, "ir"); },
        "no host body named 'no_such_body'");
}

}  // namespace
}  // namespace spion
