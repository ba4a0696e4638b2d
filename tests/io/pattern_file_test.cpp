// One pattern in every form, written by NumPy, SciPy, Pillow and by hand.
#include "io/pattern_file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "ir/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/scratch_folder.h"

namespace spion {
namespace {

const std::string kGoldens = SPION_TEST_DATA "/goldens/";
const PatternRequest kRequest{.block = 16, .length = 72};

nlohmann::json golden() {
    std::ifstream file(kGoldens + "patterns.json");
    return nlohmann::json::parse(file);
}

std::string golden_bits() {
    std::string bits;
    const nlohmann::json json = golden();
    for (const std::string row : json["pattern"]) {
        bits += row + "\n";
    }
    return bits;
}

TEST(PatternFile, ReadsOnePatternInEveryForm) {
    const std::string bits = golden_bits();
    for (const char* name :
         {"patterns.json", "mask-blocks.npy", "mask-elements.npy", "mask-elements.npz",
          "mask-elements.npz:mask", "mask-blocks.csv", "mask-savetxt.csv", "csr.npz",
          "csr-blocks.npz", "bsr.npz", "bsr-4.npz", "bsr-holes.npz"}) {
        SCOPED_TRACE(name);
        const FoundPattern found = open_pattern(kGoldens + name, kRequest);
        EXPECT_EQ(found.pattern.to_bits(), bits);
        EXPECT_EQ(found.pattern.length(), 72);
        EXPECT_EQ(found.pattern.block(), 16);
        // Of bsr-holes.npz one element a block is set.
        EXPECT_EQ(found.partial_blocks, name == std::string("bsr-holes.npz") ? 10 : 0);
    }
    EXPECT_EQ(golden()["bsr_block"][0], 6) << "scipy's own choice, which is no block of ours";
}

TEST(PatternFile, ReadsPictures) {
#ifdef SPION_PNG
    for (const char* name : {"mask-blocks.png", "mask-elements.png", "mask-colour.png"}) {
        SCOPED_TRACE(name);
        EXPECT_EQ(open_pattern(kGoldens + name, kRequest).pattern.to_bits(), golden_bits());
    }
    expect_error<UserError>([] { open_pattern(kGoldens + "mask-grey.png", kRequest); },
                            "mask-grey.png: pixel [0, 0] is grey (128): use white for what is set");
    const Bytes good = read_bytes(kGoldens + "mask-blocks.png");
    const Bytes half = own(std::string(good.view.substr(0, good.view.size() / 2)));
    expect_error<UserError>([&] { parse_pattern(half, "half.png", "", kRequest); },
                            "half.png: the picture is damaged (");
#else
    expect_error<UserError>([] { open_pattern(kGoldens + "mask-blocks.png", kRequest); },
                            "is a picture and this spion was built without libpng");
#endif
}

TEST(PatternFile, AFileMaySayLengthAndBlock) {
    const FoundPattern found = open_pattern(kGoldens + "patterns.json", {});
    EXPECT_EQ(found.pattern.length(), 72);
    EXPECT_EQ(found.pattern.block(), 16);
    expect_error<UserError>([] { open_pattern(kGoldens + "patterns.json", {.block = 32}); },
                            "its blocks are of 16 and --block says 32: leave --block out");
    expect_error<UserError>([] { open_pattern(kGoldens + "patterns.json", {.length = 80}); },
                            "its length is 72 and --length says 80: leave --length out");
}

TEST(PatternFile, WithoutALengthRowsAreBlocks) {
    EXPECT_EQ(open_pattern(kGoldens + "mask-blocks.npy", {}).pattern.length(), 5 * 64);
    EXPECT_EQ(open_pattern(kGoldens + "mask-blocks.csv", {.block = 32}).pattern.length(), 5 * 32);
    expect_error<UserError>([] { open_pattern(kGoldens + "mask-elements.npy", {}); },
                            "holds a mask of 72 x 72, which may be blocks or elements: give "
                            "--length 4608 for blocks of 64, --length 72 for elements");
    expect_error<UserError>(
        [] { open_pattern(kGoldens + "csr.npz", {.block = 16, .length = 100}); },
        "holds a mask of 72 x 72: length 100 in blocks of 16 needs 7 x 7 blocks or 100 x 100");
    expect_error<UserError>([] { open_pattern(kGoldens + "csr.npz", {.block = 17}); },
                            "block 17 is not allowed: use 16, 32, 64 or 128");
    expect_error<UserError>(
        [] { open_pattern(kGoldens + "csr.npz", {.block = 16, .length = 1L << 40}); },
        "at most 32768 x 32768 are allowed");
}

TEST(PatternFile, ReadsOneOfSeveral) {
    const ScratchFolder folder;
    const std::string file =
        folder.write("several.json",
                     R"([{"map":"0","length":32,"block":16,"pattern":["10","01"]},
            {"map":"1","length":32,"block":16,"pattern":["11","01"]}])");
    EXPECT_EQ(open_pattern(file + ":1", {}).pattern.to_bits(), "11\n01\n");
    EXPECT_EQ(open_pattern(file + ":0", {}).pattern.to_bits(), "10\n01\n");
    for (const char* wrong : {"", ":2", ":x", ":-1"}) {
        expect_error<UserError>([&] { open_pattern(file + wrong, {}); },
                                "several.json: holds 2 patterns: name one as ");
    }
}

TEST(PatternFile, ReadsTextInEverySpelling) {
    const auto bits = [](const std::string& text) {
        return parse_pattern(own(text), "given", "", {.block = 16}).pattern.to_bits();
    };
    EXPECT_EQ(bits("10\n01\n"), "10\n01\n");
    EXPECT_EQ(bits("\xEF\xBB\xBF"
                   "10\r\n01\r\n"),
              "10\n01\n");
    EXPECT_EQ(bits("1,0\r\n0,1\r\n"), "10\n01\n");
    EXPECT_EQ(bits("\xEF\xBB\xBF"
                   "1;0\n0;1"),
              "10\n01\n");
    EXPECT_EQ(bits("  1 0\n\n  1\t1\n"), "10\n11\n");
    EXPECT_EQ(bits("True,False\nfalse,TRUE\n"), "10\n01\n");
    EXPECT_EQ(bits("1.0 0e+00\n0.000 1.000e+00\n"), "10\n01\n");
    EXPECT_EQ(bits("1\n"), "1\n");
}

TEST(PatternFile, RefusesOtherContents) {
    const auto refuses = [](const std::string& text, const std::string& message) {
        expect_error<UserError>([&] { parse_pattern(own(text), "given", "", {}); },
                                "given" + message);
    };
    refuses("1,0\n0\n", ":2: row of 1 numbers after rows of 2: give a square mask");
    refuses("1,0\n", ": 1 rows of 2 numbers: give a square mask");
    refuses("1,2\n0,1\n", ":1: \"2\" is neither 0 nor 1: use 0 and 1, or false and true");
    refuses("1,nan\n0,1\n", ":1: \"nan\" is neither 0 nor 1");
    refuses("10\n0x\n", ":2: character 'x' is not a bit");
    refuses("\n \n", ": holds no bits; give nb lines of nb characters 0 or 1, JSON of");
    refuses("{\"length\": 16", ": is no JSON object of one pattern or array of several");
    refuses("[]", ": is no JSON object of one pattern or array of several");
    refuses("[7]", ": pattern 0 is no JSON object");
    refuses("{}", ": \"length\" is no number from 1 to 2147483647: give the JSON of");
    refuses(R"({"length": 16, "block": "16"})", ": \"block\" is no number");
    refuses(R"({"length": 16, "block": 16})", ": \"pattern\" is no array of rows");
    refuses(R"({"length": 16, "block": 16, "pattern": [1]})", ": a row of \"pattern\" is no text");
    refuses(R"({"length": 16, "block": 16, "pattern": ["11"]})", ":1: row of 2 bits: length 16 in");
    expect_error<UserError>(
        [] {
            parse_pattern(own(R"({"length": 16, "block": 17, "pattern": ["1"]})"), "given", "", {});
        },
        "block 17 is not allowed: use 16, 32, 64 or 128");
    const std::string npy = std::string(read_bytes(kGoldens + "../goldens/float32.npy").view);
    refuses(npy, ": holds float32: give a mask of bool or integers");
    const std::string wide = std::string(read_bytes(kGoldens + "bool.npy").view);
    refuses(wide, ": a mask of shape (3, 4) is not square: give (nb, nb) or (L, L)");
    expect_error<UserError>([] { open_pattern(kGoldens + "coo.npz", kRequest); },
                            "coo.npz: is a sparse matrix in format coo: save it with .tocsr() or");
    expect_error<UserError>([] { open_pattern(kGoldens + "mask-blocks.csv:1", kRequest); },
                            "holds one pattern: leave out :1");
    const ScratchFolder folder;
    expect_error<UserError>([&] { open_pattern(folder.write("empty.bits", ""), kRequest); },
                            "empty.bits is empty");
    expect_error<UserError>([&] { open_pattern(folder.file("none.bits"), kRequest); },
                            "none.bits cannot be read (No such file or directory)");
    expect_error<UserError>([&] { open_pattern(folder.path().string(), kRequest); },
                            " is a folder");
}

TEST(PatternFile, MarksBlocksThatAreSetInPart) {
    std::string csv;  // causal: 20 elements, blocks of 16
    for (int i = 0; i < 20; ++i) {
        for (int j = 0; j < 20; ++j) {
            csv += j <= i ? "1," : "0,";
        }
        csv += "\n";
    }
    const FoundPattern found = parse_pattern(own(csv), "given", "", {.block = 16, .length = 20});
    EXPECT_EQ(found.pattern.to_bits(), "10\n11\n");
    EXPECT_EQ(found.partial_blocks, 2);  // the diagonal
}

}  // namespace
}  // namespace spion
