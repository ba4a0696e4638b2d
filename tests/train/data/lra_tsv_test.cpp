#include "train/data/lra_tsv.h"

#include <gtest/gtest.h>

#include "ir/error.h"
#include "tests/train/temporary_folder.h"
#include "train/data/listops.h"
#include "train/data/listops_generator.h"

namespace spion {
namespace {

TEST(LraTsv, ReadsTheTreeWithItsParentheses) {
    const TemporaryFolder folder;
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
    EXPECT_EQ(split.labels, (std::vector<std::uint8_t>{4, 7, 8}));
}

TEST(LraTsv, ReadsWhatItWrites) {
    ListOpsSettings settings;
    settings.train_samples = 40;
    settings.validation_samples = settings.test_samples = 5;
    const Dataset data = generate_list_ops(settings, 2);
    const TemporaryFolder folder;
    write_list_ops_folder(data, folder.path() / "new");
    const Dataset read = read_list_ops_folder(folder.path() / "new", 2000);
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
        {"", ":1: expected the header line 'Source<TAB>Target'"},
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
    const TemporaryFolder folder;
    for (const BadFile& bad : cases) {
        const auto file = folder.write("bad.tsv", bad.text);
        const std::string message = message_of<UserError>([&] { read_list_ops_tsv(file, 5); });
        EXPECT_TRUE(message.starts_with(file.string() + bad.part)) << message;
    }
}

TEST(LraTsv, NamesAFileThatIsMissing) {
    const TemporaryFolder folder;
    folder.write("basic_train.tsv", "Source\tTarget\n1\t1\n");
    const std::string message =
        message_of<UserError>([&] { read_list_ops_folder(folder.path(), 10); });
    EXPECT_NE(message.find("basic_val.tsv (No such file"), std::string::npos) << message;
    EXPECT_NE(message.find("--data needs"), std::string::npos) << message;
    EXPECT_THROW(read_list_ops_tsv(folder.path(), 10), UserError);
    EXPECT_THROW(write_list_ops_tsv({}, folder.path() / "none" / "a.tsv"), UserError);
}

}  // namespace
}  // namespace spion
