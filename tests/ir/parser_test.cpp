#include "ir/parser.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "ir/error.h"
#include "tests/support/expect_error.h"

namespace spion {
namespace {

const std::string kAttention =
    "attention H=2 D=16 L=80 dtype=fp16 scale=0.25 softmax=masked key_padding=false dropout=0\n";
const std::string kPattern = "pattern L=80 block=32\n101\n000\n111\n";
const std::string kShape =
    "shape block=32 stationary_rows=16 streamed_rows=32 gather_rows=16 warps=1 stages=2 "
    "unit=mma_sync tables=passed\n";
const std::string kWalk =
    "walk tiles=5 gather_blocks=11 longest=5 empty=2\n"
    "tile 4: 0..4\n"
    "tile 0: 0 1 4\n"
    "tile 1: 0 1 4\n"
    "tile 2:\n"
    "tile 3:\n";
const std::string kRole = "program role=attention_forward\n";
const std::string kProgram = kRole + kAttention + kShape + kWalk;
// Two block rows a tile; the third block row is alone in the second tile.
const std::string kPackedShape =
    "shape block=32 stationary_rows=64 streamed_rows=64 gather_rows=32 warps=4 stages=1 "
    "unit=wgmma tables=baked\n";
const std::string kPacked = kRole + kAttention + kPackedShape +
                            "walk tiles=2 gather_blocks=5 longest=3 empty=0\n"
                            "tile 1 dense: 0..2/10\n"
                            "tile 0 irregular: 0/10 2/10\n";

std::string replaced(std::string text, const std::string& what, const std::string& with) {
    const std::size_t at = text.find(what);
    EXPECT_NE(at, std::string::npos) << what;
    return at == std::string::npos ? text : text.replace(at, what.size(), with);
}

const std::string kMarked = replaced(
    replaced(replaced(kPacked, "empty=0", "empty=0 partial=3"), "0..2/10", "0/10 1/10 2/10~"),
    ": 0/10 2/10", ": 0/10~ 2/10~");

const std::string kSummary =
    "program role=score_summary\n" + kAttention + "shape block=32 tile=16 filter=31\n";
const std::string kStep = "program role=train_adamw\nshape kChannels=64 kDropout=0.1\n";
const std::string kBareStep = "program role=train_sum_partials\nshape\n";

// More keys than queries, with a program of each side.
TEST(Parser, ReadsAnotherLengthOfKeys) {
    const std::string attention =
        "attention H=1 D=16 L=20 dtype=fp16 scale=0.25 softmax=masked key_padding=false dropout=0 "
        "mask=causal kv_length=40\n";
    const std::string pattern = "pattern L=20 block=16 kv_length=40\n110\n011\n";
    const std::string shape =
        "shape block=16 stationary_rows=16 streamed_rows=16 gather_rows=16 warps=1 stages=2 "
        "unit=mma_sync tables=passed\n";
    const std::string rows = kRole + attention + shape +
                             "walk tiles=2 gather_blocks=4 longest=2 empty=0\n"
                             "tile 0: 0 1\ntile 1: 1 2\n";
    const std::string columns = "program role=attention_key_value_gradient\n" + attention + shape +
                                "walk tiles=3 gather_blocks=4 longest=2 empty=0\n"
                                "tile 1: 0 1\ntile 0: 0\ntile 2: 1\n";
    const std::string text = attention + pattern + rows + columns;
    const IrModule ir = parse_ir(text, "keys");
    EXPECT_EQ(ir.attention->key_value_length(), 40);
    EXPECT_EQ(ir.pattern->columns(), 3);
    EXPECT_EQ(to_text(ir), text);
    expect_error<UserError>(
        [&] { parse_ir(attention + "pattern L=20 block=16\n11\n11\n", "keys"); },
        "the pattern has L=20, the attention L=20 kv_length=40");
    expect_error<UserError>([&] { parse_ir(replaced(text, "tile 1: 1 2", "tile 1: 1 3"), "keys"); },
                            "gather block is 3, expected 0 to 2");
}

// Found by random edits: a number that repeats its default was kept, and lost when it was printed.
TEST(Parser, TakesNumbersThatRepeatTheirDefaults) {
    const std::string attention =
        "attention H=2 D=16 L=20 dtype=fp16 scale=0.25 softmax=masked key_padding=false dropout=0";
    const std::string pattern = "\npattern L=20 block=16\n10\n01\n";
    const IrModule plain = parse_ir(attention + pattern, "plain");
    for (const std::string repeated : {" kv_heads=2", " kv_length=20", " Dv=16"}) {
        SCOPED_TRACE(repeated);
        EXPECT_EQ(parse_ir(attention + repeated + pattern, "repeated"), plain);
    }
    EXPECT_NE(parse_ir(attention + " kv_heads=1" + pattern, "grouped"), plain);
}

// A pattern for each of two query heads that share a head of K and V.
TEST(Parser, ReadsPatternsOfHeads) {
    const std::string attention =
        "attention H=2 D=16 L=20 dtype=fp16 scale=0.25 softmax=masked key_padding=false dropout=0 "
        "kv_heads=1 patterns=2\n";
    const std::string patterns = "pattern L=20 block=16\n10\n01\npattern L=20 block=16\n00\n11\n";
    const std::string shape =
        "shape block=16 stationary_rows=16 streamed_rows=16 gather_rows=16 warps=1 stages=2 "
        "unit=mma_sync tables=passed\n";
    const std::string rows = kRole + attention + shape +
                             "walk tiles=4 gather_blocks=4 longest=2 empty=1\n"
                             "tile 1.1: 0 1\ntile 0.0: 0\ntile 0.1: 1\ntile 1.0:\n";
    const std::string columns = "program role=attention_key_value_gradient\n" + attention + shape +
                                "walk tiles=4 gather_blocks=4 longest=1 empty=0\n"
                                "tile 0.1: 1\ntile 1.1: 1\ntile 0.0: 0\ntile 1.0: 1\n";
    const std::string text = attention + patterns + rows + columns;
    const IrModule ir = parse_ir(text, "heads");
    EXPECT_EQ(ir.pattern->count(), 2);
    EXPECT_EQ(ir.programs[0].order, (std::vector<std::int32_t>{3, 0, 1, 2}));
    EXPECT_EQ(to_text(ir), text);
    const auto refused = [&](const std::string& what, const std::string& with,
                             const std::string& message) {
        expect_error<UserError>([&] { parse_ir(replaced(text, what, with), "heads"); }, message);
    };
    refused("tile 1.1: 0 1", "tile 2.1: 0 1", "pattern index is 2, expected 0 to 1");
    refused("tile 1.1: 0 1", "tile 1.2: 0 1", "tile index is 2, expected 0 to 1");
    refused("tile 1.1: 0 1", "tile 1: 0 1", "expected '.'");
    refused("pattern L=20 block=16\n00\n11\n", "", "there are 1 patterns, and the attention has 2");
    refused("block=16\n00\n11\n", "block=32\n1\n", "give all heads of a layer the same lengths");
    refused("tile 0.1: 1\ntile 1.1: 1\ntile 0.0: 0\n", "tile 0.1: 1\ntile 0.0: 0\ntile 1.1: 1\n",
            "stands among the 2 walks of an item that tile 0.1 begins");
}

TEST(Parser, ReadsAWholeModule) {
    const IrModule ir = parse_ir(kAttention + kPattern + kProgram + kPacked, "all");
    ASSERT_TRUE(ir.attention && ir.pattern);
    EXPECT_EQ(ir.attention->heads, 2);
    EXPECT_EQ(ir.attention->dtype, DType::kFp16);
    EXPECT_EQ(ir.attention->scale, 0.25F);
    EXPECT_EQ(*ir.pattern, BlockPattern(80, 32, {1, 0, 1, 0, 0, 0, 1, 1, 1}));
    ASSERT_EQ(ir.programs.size(), 2U);
    EXPECT_EQ(ir.programs[0].order, (std::vector<std::int32_t>{4, 0, 1, 2, 3}));
    EXPECT_EQ(ir.programs[0].offsets, (std::vector<std::int32_t>{0, 5, 8, 11, 11, 11}));
    EXPECT_EQ(ir.programs[0].gather_blocks,
              (std::vector<std::int32_t>{0, 1, 2, 3, 4, 0, 1, 4, 0, 1, 4}));
    EXPECT_TRUE(ir.programs[0].block_row_masks.empty());
    EXPECT_EQ(ir.programs[1].block_row_masks, (std::vector<std::uint32_t>{1, 1, 1, 1, 1}));
    EXPECT_TRUE(ir.programs[1].coverages.empty());
    EXPECT_EQ(ir.programs[1].tables, Tables::kBaked);
    EXPECT_EQ(ir.programs[1].unit, MatrixUnit::kWgmma);
    EXPECT_EQ(ir.programs[1].classes,
              (std::vector<RowClass>{RowClass::kDense, RowClass::kIrregular}));
}

TEST(Parser, ReadsMarks) {
    const IrModule ir = parse_ir(kMarked, "marked");
    EXPECT_EQ(ir.programs.at(0).coverages,
              (std::vector<Coverage>{Coverage::kFull, Coverage::kFull, Coverage::kPartial,
                                     Coverage::kPartial, Coverage::kPartial}));
}

TEST(Parser, PrintingIsTheInverse) {
    const std::string seed = kRole + kAttention + "shape block=32\n";
    for (const std::string& text :
         {kAttention, kPattern, kAttention + kPattern, kProgram, kPacked, seed,
          kRole + kAttention + kShape, kMarked, kSummary, kStep, kBareStep,
          kAttention + kPattern + kProgram + kSummary + kStep + kBareStep,
          kAttention + kPattern + seed + kProgram + kPacked}) {
        EXPECT_EQ(to_text(parse_ir(text, "given")), text);
    }
}

TEST(Parser, ReadsKernelsBesidesAttention) {
    const IrModule ir = parse_ir(kStep + kSummary + kProgram, "all");
    EXPECT_EQ(ir.programs.size(), 1U);
    ASSERT_EQ(ir.summaries.size(), 1U);
    EXPECT_EQ(ir.summaries[0].attention, ir.programs[0].attention);
    EXPECT_EQ(ir.summaries[0].block, 32);
    EXPECT_EQ(ir.summaries[0].tile, 16);
    EXPECT_EQ(ir.summaries[0].filter, 31);
    ASSERT_EQ(ir.steps.size(), 1U);
    EXPECT_EQ(ir.steps[0], (StepProgram{.name = "adamw",
                                        .constants = {{.name = "kChannels", .value = 64},
                                                      {.name = "kDropout", .value = 0.1F}}}));
    EXPECT_EQ(to_text(ir), kProgram + kSummary + kStep) << "attention comes first";
}

TEST(Parser, SpacesCommentsAndRangesAreFree) {
    const std::string program =
        replaced(replaced(kProgram, "0 1 4", "0..1 4..4"), "0..4", "0 1 2..4");
    const std::string free = fmt::format(
        "# by hand\r\n\n\tpattern  L=80 block=32 \r\n  101\n\n# nothing here\n"
        "000\n111\n{}",
        program);
    EXPECT_EQ(to_text(parse_ir(free, "free")), kPattern + kProgram);
}

struct Bad {
    std::string text, place, message;
};

void expect_refused(const Bad& bad) {
    SCOPED_TRACE(bad.text);
    expect_error<UserError>([&] { parse_ir(bad.text, "f.ir"); }, "f.ir:" + bad.place + ": ");
    expect_error<UserError>([&] { parse_ir(bad.text, "f.ir"); }, bad.message);
}

TEST(Parser, PointsAtTheFault) {
    try {
        parse_ir(replaced(kAttention, "dtype=fp16", "dtype=fp15"), "f.ir");
        FAIL() << "nothing was thrown";
    } catch (const UserError& error) {
        EXPECT_STREQ(error.what(),
                     "f.ir:1:31: dtype 'fp15' is not known: use fp32, tf32, bf16 or fp16\n"
                     "  attention H=2 D=16 L=80 dtype=fp15 scale=0.25 softmax=masked "
                     "key_padding=false dropout=0\n"
                     "                                ^");
    }
}

TEST(Parser, FieldsThatAreWrong) {
    const std::vector<Bad> cases = {
        {"", "1:1", "expected 'attention', 'pattern' or 'program', found the end of the text"},
        {"# only this\n", "2:1", "found the end of the text"},
        {"attentions", "1:1", "expected an attention line"},
        {kPattern + kAttention, "5:1", "expected an attention line, then a pattern section"},
        {replaced(kAttention, "D=16 ", ""), "1:15", "expected 'D=', found 'L=80'"},
        {replaced(kAttention, "D=16", "D=x"), "1:17", "expected D, found 'x'"},
        {replaced(kAttention, "D=16", "D=20"), "1:1", "head dimension 20 is not supported"},
        {replaced(kAttention, "H=2", "H=0"), "1:13", "H is 0, expected 1 to 2147483647"},
        {replaced(kAttention, "L=80", "L=99999999999999999999"), "1:22", "L is 9999"},
        {replaced(kAttention, "dropout=0", "dropout=0 mask=triangle"), "1:95",
         "mask 'triangle' is not known: use none, causal or spans"},
        {replaced(kAttention, "dropout=0", "dropout=1"), "1:1", "attention dropout 1 is not"},
        {replaced(kAttention, "dropout=0", "dropout=0 softcap=-2"), "1:1", "softcap -2 is not"},
        {replaced(kAttention, "dropout=0", "dropout=0 alibi=1"), "1:96",
         "'1' is neither true nor false"},
        {replaced(kAttention, "dropout=0", "dropout=0 sink=true alibi=true"), "1:100",
         "expected the end of the line, found 'alibi=true'"},
        {replaced(kAttention, "dropout=0", "dropout=0 relative_bias=9000"), "1:1",
         "relative_bias 9000 is not allowed"},
        {replaced(kAttention, "dropout=0", "dropout=0 relative_bias=0"), "1:104",
         "relative_bias is 0, expected 1 to 2147483647"},
        {replaced(kAttention, "dropout=0", "dropout=0 score=tanh(scor)"), "1:96",
         "score 'tanh(scor)': at column 6, 'scor' is not known: use numbers, score, q, k, head"},
        {replaced(kAttention, "dropout=0", "dropout=0 score=score +1"), "1:102",
         "expected the end of the line, found '+1'"},
        {replaced(kAttention, "dropout=0", "dropout=0 score= "), "1:97", "expected score, found"},
        {replaced(kAttention, "dropout=0", "dropout=0 softcap=3 score=score/2"), "1:1",
         "softcap=3 beside score 'score/2' is not supported: write the cap into the expression"},
        {replaced(kAttention, "dropout=0", "dropout=0 score_derivative=1"), "1:1",
         "score_derivative '1' was given without a score"},
        {replaced(kAttention, "dropout=0", "dropout=0 score=2*score score_derivative=1"), "1:1",
         "score_derivative '1' is not the derivative of score '2*score'"},
        {replaced(kAttention, "dropout=0", "dropout=0 Dv=20"), "1:1",
         "head dimension 20 of V is not supported"},
        {replaced(kAttention, "dropout=0", "dropout=0 varlen=true"), "1:1",
         "varlen takes mask=spans"},
        {replaced(kAttention, "dropout=0", "dropout=0 sequence_patterns=2"), "1:1",
         "sequence_patterns 2 are not allowed with varlen=false"},
        {replaced(kAttention, "key_padding=false dropout=0",
                  "key_padding=false dropout=0 mask=spans varlen=true sequence_patterns=2") +
             kPattern,
         "2:1", "there are 1 patterns, and the attention has 2"},
        {replaced(kAttention, "0.25", "nan"), "1:1", "scale nan is not allowed"},
        {replaced(kAttention, "0.25", "quarter"), "1:42", "expected scale as a number"},
        {replaced(kAttention, "masked", "soft"), "1:55", "softmax kind 'soft' is not known"},
        {replaced(kAttention, "false", "no"), "1:74", "'no' is neither true nor false"},
        {replaced(kAttention, "\n", " L=80\n"), "1:90", "expected the end of the line, found 'L=8"},
        {replaced(kPattern, "000", "00"), "3:1", "expected 3 bits, as many as there are blocks"},
        {replaced(kPattern, "000", "0x0"), "3:1", "(block row 1 of 3)"},
        {replaced(kPattern, "111\n", ""), "4:1", "found the end of the text"},
        {replaced(kPattern, "block=32", "block=48"), "1:20", "block is 48, expected 16, 32, 64"},
        {kAttention + replaced(kPattern, "L=80", "L=81"), "2:1", "the pattern has L=81"},
    };
    for (const Bad& bad : cases) {
        expect_refused(bad);
    }
}

TEST(Parser, ProgramsThatAreWrong) {
    const std::string shape = kRole + kAttention + kShape;
    const std::vector<Bad> cases = {
        {"program role=dense\n", "1:14",
         "kernel role 'dense' is not known: use attention_forward, attention_query_gradient, "
         "attention_key_value_gradient, attention_delta or attention_gradients, score_summary or "
         "train_NAME"},
        {replaced(kSummary, "block=32", "block=40"), "3:1", "block 40 is not 16, 32, 64 or 128"},
        {replaced(kSummary, "tile=16", "tile=64"), "3:1", "tile 64 in block 32, 16, 32 or 64 and"},
        {replaced(kSummary, "filter=31", "filter=66"), "3:1", "filter 66 reaches beyond the nei"},
        {replaced(kSummary, "filter=31", "filters"), "3:24", "expected 'filter=', found 'filters'"},
        {replaced(kStep, "adamw", ""), "1:20", "expected the name of a step kernel, found the"},
        {replaced(kStep, "adamw", "a-b"), "1:21", "expected the end of the line, found '-b'"},
        {replaced(kStep, "adamw", "4"), "1:1", "'train_4' is no name of a step kernel"},
        {replaced(kStep, "kDropout=0.1", "kDropout"), "2:28", "expected '=', found the end of"},
        {replaced(kStep, "0.1", "some"), "2:29", "expected kDropout as a number, found 'some'"},
        {replaced(kStep, "0.1", "inf"), "1:1", "constant kDropout is inf, a finite number is"},
        {replaced(kStep, "kChannels", "4"), "1:1", "'4' is no name of a constant"},
        {replaced(kStep, "kChannels", "=4"), "2:7",
         "expected the name of a constant, found '=4=64'"},
        {replaced(shape, "mma_sync", "tensor"), "3:89", "matrix unit 'tensor' is not known: use"},
        {replaced(shape, "passed", "kept"), "3:105", "kind of tables 'kept' is not known: use"},
        {replaced(shape, "gather_rows=16", "gather_rows=12"), "1:1",
         "gather_rows 12 does not divide block 32"},
        {replaced(shape, "warps=1", "warps=2147483647"), "1:1", "2147483647 warps for 16"},
        {kRole + kAttention + "shape block=32\n" + kWalk, "4:1", "without tiles has no walk"},
        {replaced(kProgram, "empty=2", "empty=1"), "4:1",
         "the counts do not fit the tiles: expected 'walk tiles=5 gather_blocks=11 longest=5 "
         "empty=2'"},
        {replaced(kProgram, "tile 0: 0", "tile 0: 7"), "6:9", "gather block is 7, expected 0 to 4"},
        {replaced(kProgram, "0..4", "3..2"), "5:12", "last gather block is 2, expected 3 to 4"},
        {replaced(kProgram, "tile 0: 0 1", "tile 0: 1 0"), "6:1",
         "gather block 0 follows 1, not asc"},
        {replaced(kProgram, "tile 0:", "tile 4:"), "6:1", "work item 1 is tile 4 a second time"},
        {replaced(kProgram, "tile 2:", "tile 2 empty:"), "8:1", "a row class for every tile, or"},
        {replaced(kProgram, "tile 2:", "tile 2"), "8:7", "expected a row class or ':', found the"},
        {replaced(kPacked, "dense", "band"), "5:1",
         "tile 1 is classed band, its gather blocks are den"},
        {replaced(kPacked, "dense", "thick"), "5:8", "row class 'thick' is not known: use empty"},
        {replaced(kPacked, "0/10", "0"), "6:21", "expected '/', found '2/10'"},
        {replaced(kPacked, "0/10", "0/1"), "6:21", "expected a bit for each of the 2 block rows"},
        {replaced(kPacked, "0/10", "0/00"), "6:1", "gather block 0 is used by no block row"},
        {kPattern + replaced(kPacked, "0/10", "0/11"), "10:1",
         "tile 0 streams gather block 0 outside"},
        {kPattern + replaced(kPacked, " 2/10", " 2/01"), "10:1",
         "tile 0 lacks gather block 2 of the"},
        {replaced(kPattern, "101", "111") + kProgram, "10:1",
         "tile 0 lacks gather block 2 of the pat"},
        {replaced(kMarked, "2/10~\ntile", "2/10\ntile"), "4:1",
         "expected 'walk tiles=2 gather_blocks=5 longest=3 empty=0 partial=2'"},
        {replaced(replaced(kMarked, "partial=3", "partial=2"), "2/10~\ntile", "2/10\ntile"), "5:1",
         "tile 1: gather block 2 is marked full, it is partial"},
        {replaced(kPacked, "0..2/10", "0..2/10~"), "5:22", "expected gather block, found '~'"},
        {"pattern L=80 block=64\n10\n01\n" + kProgram, "4:1", "was made for another pattern"},
    };
    for (const Bad& bad : cases) {
        expect_refused(bad);
    }
}

// What a short text may make the parser allocate.
TEST(Parser, RangesAreBounded) {
    const std::string huge =
        replaced(replaced(kRole + kAttention + kShape, "L=80", "L=2147483647"), "gather_rows=16",
                 "gather_rows=1") +
        "walk tiles=5 gather_blocks=1 longest=1 empty=0\ntile 0: 0..2147483646\n";
    expect_refused({huge, "5:12", "more than 67108864 gather blocks in a text"});
}

}  // namespace
}  // namespace spion
