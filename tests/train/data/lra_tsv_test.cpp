#include "train/data/lra_tsv.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "ir/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/scratch_folder.h"
#include "train/data/listops.h"
#include "train/data/listops_generator.h"

namespace spion {
namespace {

TEST(LraTsv, ReadsTheTreeWithItsParentheses) {
    const ScratchFolder folder;
    const auto file = folder.write("a.tsv",
                                   "Source\tTarget\r\n"
                                   "( ( ( ( ( [MAX 4 ) 3 ) ( ( ( [MIN 2 ) 3 ) ] ) ) 1 ) ] )\t4\r\n"
                                   "7\t7\n"
                                   "\n"
                                   "[SM 9 9 ]\t8\n");
    const Split split = read_list_ops_tsv(file, 100);
    ASSERT_EQ(split.samples(), 3);
    EXPECT_EQ(list_ops_text(split.sample(0)), "[MAX 4 3 [MIN 2 3 ] 1 ]");
    EXPECT_EQ(list_ops_text(split.sample(1)), "7");
    EXPECT_EQ(list_ops_text(split.sample(2)), "[SM 9 9 ]");
    EXPECT_EQ(split.labels, (std::vector<std::uint16_t>{4, 7, 8}));
}

TEST(LraTsv, ReadsWhatItWrites) {
    ListOpsSettings settings;
    settings.train_samples = 40;
    settings.validation_samples = settings.test_samples = 5;
    const Dataset data = generate_list_ops(settings, 2);
    const ScratchFolder folder;
    write_list_ops_folder(data, folder.file("new"));
    const Dataset read = read_list_ops_folder(folder.file("new"), 2000);
    EXPECT_EQ(read.train, data.train);
    EXPECT_EQ(read.validation, data.validation);
    EXPECT_EQ(read.test, data.test);
}

struct BadFile {
    const char* text;
    const char* part;  // of the message, after the file's name
};

TEST(LraTsv, NamesFileAndLineOfWhatIsWrong) {
    const BadFile cases[] = {
        {"", " is empty; give the header line"},
        {"Source,Target\n1\t1\n", ":1: expected the header"},
        {"Source\tTarget\n", ": no samples follow the header"},
        {"Source\tTarget\n1\t1\n[MAX 1 2 ]\n", ":3: expected an expression, one tab"},
        {"Source\tTarget\n1\t1\t1\n", ":2: expected an expression, one tab"},
        {"Source\tTarget\n[AVG 1 2 ]\t1\n", ":2: '[AVG' is no ListOps token; allowed are [MIN"},
        {"Source\tTarget\n[MAX 1 2\t2\n", ":2: 1 bracket(s) are never closed"},
        {"Source\tTarget\n1 ]\t2\n", ":2: a ']' closes nothing"},
        {"Source\tTarget\n( )\t2\n", ":2: the expression is empty"},
        {"Source\tTarget\n1\t12\n", ":2: the target is '12', but it must be one digit"},
        {"Source\tTarget\n1\t\n", ":2: the target is ''"},
        {"Source\tTarget\n[MAX 1 2 3 4 ]\t4\n",
         ":2: the expression has 6 tokens, but length allows "
         "5: raise --length"},
    };
    const ScratchFolder folder;
    for (const BadFile& bad : cases) {
        const auto file = folder.write("bad.tsv", bad.text);
        expect_error<UserError>([&] { read_list_ops_tsv(file, 5); }, file + bad.part);
    }
}

// Lines are read in pieces of 64 KiB: what lies on a piece's edge is neither lost nor read twice.
TEST(LraTsv, LongLinesAreReadWhole) {
    const ScratchFolder folder;
    for (const int length : {65533, 65534, 65535, 65536, 65537, 131071, 200000}) {
        std::string tokens = "[MAX";
        while (static_cast<int>(tokens.size()) < length - 6) tokens += " 4";
        tokens += std::string(static_cast<std::size_t>(length) - 4 - tokens.size(), ' ') + " ]\t4";
        for (const char* end : {"", "\n", "\r\n7\t7\n"}) {
            const auto file = folder.write("long.tsv", "Source\tTarget\n" + tokens + end);
            const Split split = read_list_ops_tsv(file, 1 << 20);
            ASSERT_EQ(split.samples(), std::string(end).size() > 2 ? 2 : 1) << length;
            EXPECT_EQ(static_cast<std::ptrdiff_t>(split.sample(0).size()),
                      std::count(tokens.begin(), tokens.end(), '4') + 1)
                << length;
        }
    }
    const auto file = folder.write("endless.tsv", "Source\tTarget\n" + std::string(17 << 20, '7'));
    expect_error<UserError>([&] { read_list_ops_tsv(file, 1 << 20); },
                            ":2: the line has more than 16 MiB");
}

TEST(LraTsv, NamesAFileThatIsMissing) {
    const ScratchFolder folder;
    folder.write("basic_train.tsv", "Source\tTarget\n1\t1\n");
    expect_error<UserError>([&] { read_list_ops_folder(folder.file(""), 10); },
                            "basic_val.tsv (No such file or directory); --data needs a folder");
    expect_error<UserError>([&] { read_list_ops_tsv(folder.file(""), 10); }, "it is a folder");
    expect_error<UserError>([&] { write_list_ops_tsv({}, folder.file("none/a.tsv")); },
                            "cannot write");
}

}  // namespace
}  // namespace spion
