#include "train/data/records.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <random>
#include <set>
#include <tuple>

#include "ir/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/scratch_folder.h"
#include "train/data/record_parts.h"
#include "train/task.h"

namespace spion {
namespace {

std::string text_of(const Samples& samples, std::int64_t index, int tower = 0) {
    std::vector<std::uint16_t> tokens;
    samples.read(index, tower, tokens);
    std::string text;
    for (const std::uint16_t token : tokens) text += static_cast<char>(token - 1);
    return text;
}

class Records : public testing::Test {
  protected:
    RecordSamples read(const std::string& name, const std::string& bytes,
                       RecordSettings settings = {.towers = 1, .length = 100}) {
        return {folder_.write(name, bytes), record_form(name), settings};
    }
    void expect_refused(const std::string& name, const std::string& bytes, const std::string& text,
                        RecordSettings settings = {.towers = 1, .length = 100}) {
        const std::string file = folder_.write(name, bytes);
        expect_error<UserError>([&] { RecordSamples(file, record_form(file), settings); },
                                file + text);
    }
    ScratchFolder folder_;
};

std::ptrdiff_t open_files() {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
}

TEST_F(Records, CloseTheirFileWhereItIsRefused) {
    const std::ptrdiff_t before = open_files();
    expect_refused("f.tsv", "1\tone\n0\n", ":2: 1 fields, but the first line has 2");
    expect_refused("f.csv", "1,\"one\n", "");
    EXPECT_EQ(open_files(), before);
    {
        const RecordSamples samples = read("f.tsv", "1\tone\n");
        EXPECT_EQ(open_files(), before + 1);
    }
    EXPECT_EQ(open_files(), before);
}

TEST_F(Records, OfTsvAreLabelAndTextWithOrWithoutNames) {
    for (const char* bytes : {"1\tone\n0\ttwo \"quoted, as it stands\n1.0\tthree\n",
                              "\xEF\xBB\xBF"
                              "1\tone\r\n\r\n0\ttwo \"quoted, as it stands\r\n1.0\tthree",
                              "label\ttext\n1\tone\n0\ttwo \"quoted, as it stands\n1\tthree\n",
                              "text\tid\tlabel\none\tx\t1\ntwo \"quoted, as it stands\ty\t0\n"
                              "three\tz\t1\n"}) {
        RecordSamples samples = read("f.tsv", bytes);
        ASSERT_EQ(samples.samples(), 3) << bytes;
        EXPECT_EQ(text_of(samples, 0), "one");
        EXPECT_EQ(text_of(samples, 1), "two \"quoted, as it stands");
        EXPECT_EQ(text_of(samples, 2), "three");
        samples.number_labels(sorted_labels(samples.label_names()));
        EXPECT_EQ(samples.label(0), 1);
        EXPECT_EQ(samples.label(1), 0);
        EXPECT_EQ(samples.label(2), 1);
    }
}

TEST_F(Records, OfCsvMayHoldCommasQuotesAndLines) {
    RecordSamples samples =
        read("f.csv", "neg,\"a, b\"\npos,\"line\nand \"\"quoted\"\"\"\npos,plain\nneg,\" \"\n");
    ASSERT_EQ(samples.samples(), 4);
    EXPECT_EQ(text_of(samples, 0), "a, b");
    EXPECT_EQ(text_of(samples, 1), "line\nand \"quoted\"");
    EXPECT_EQ(text_of(samples, 2), "plain");
    EXPECT_EQ(text_of(samples, 3), " ");
    EXPECT_EQ(samples.label_names(), (std::vector<std::string>{"neg", "pos"}));
}

TEST_F(Records, OfJsonLinesAreObjects) {
    RecordSamples samples = read("f.jsonl",
                                 "{\"text\": \"\\u00e4b\", \"label\": 2, \"more\": []}\n"
                                 "{\"label\": \"10\", \"text\": \"c\\nd\"}\n");
    ASSERT_EQ(samples.samples(), 2);
    EXPECT_EQ(text_of(samples, 0),
              "\xC3\xA4"
              "b");
    EXPECT_EQ(text_of(samples, 1), "c\nd");
    EXPECT_EQ(sorted_labels({"10", "b", "2", "a"}),
              (std::vector<std::string>{"2", "10", "a", "b"}));
}

// The five columns of AAN: what is between label and texts is not read, and a printed byte string
// stays as it stands.
TEST_F(Records, OfPairsHaveTwoTexts) {
    RecordSamples samples =
        read("f.tsv", "1.0\tid1\tid2\tb'first\\n'\tb\"it's\"\n0.0\tx\ty\tc\td\n",
             {.towers = 2, .length = 5, .cut = 5});
    ASSERT_EQ(samples.samples(), 2);
    EXPECT_EQ(text_of(samples, 0, 0), "b'fir");
    EXPECT_EQ(text_of(samples, 0, 1), "b\"it'");
    EXPECT_EQ(text_of(samples, 1, 1), "d");
    const std::int64_t both[] = {1, 0};
    const Batch batch = make_batch(samples, both, 5);
    EXPECT_EQ(batch.towers, 2);
    EXPECT_EQ(batch.lengths, (std::vector<std::int32_t>{1, 5, 1, 5}));
    EXPECT_EQ(batch.tokens[0], 'c' + 1);
    EXPECT_EQ(batch.tokens[1], kPaddingToken);
    EXPECT_EQ(batch.tokens[10], 'd' + 1);
}

// The hashes are those that FNV's authors publish of these words; what is cut off has no part in them.
TEST_F(Records, MayHaveNGramsHashedForTokens) {
    constexpr std::uint32_t kFoobar = 0xBF9CF968, kA = 0xE40C292C;
    const RecordSamples samples =
        read("f.tsv", "1\tfoobar and more\n0\ta\n",
             {.towers = 1, .length = 9, .cut = 6, .tokens = {.ngram = 6, .count = 1000}});
    std::vector<std::uint16_t> tokens;
    samples.read(0, 0, tokens);
    ASSERT_EQ(tokens.size(), 6U);
    EXPECT_EQ(tokens[0], 1 + kFoobar % 999);
    EXPECT_EQ(std::set(tokens.begin(), tokens.end()).size(), 6U);
    samples.read(1, 0, tokens);
    EXPECT_EQ(tokens, (std::vector<std::uint16_t>{1 + kA % 999}));
}

// All tokens are below the count, and a class token is left out of it.
TEST(TextTask, HashesNGramsToItsVocabulary) {
    const ScratchFolder folder;
    std::string lines;
    for (int i = 0; i < 40; ++i) lines += fmt::format("{}\t{} the same words\n", i % 2, i * i);
    TrainSettings settings = preset_settings("paper", "text");
    settings.data = folder.write("texts.tsv", lines);
    settings.ngram = 3;
    settings.vocabulary = 40;
    for (const Pooling pooling : {Pooling::kMean, Pooling::kCls}) {
        settings.pooling = pooling;
        const TaskData data = task_named("text").load(settings, [](std::string_view) {});
        EXPECT_EQ(data.vocabulary, pooling == Pooling::kCls ? 39 : 40);
        std::set<int> seen;
        std::vector<std::uint16_t> tokens;
        for (std::int64_t i = 0; i < data.train->samples(); ++i) {
            data.train->read(i, 0, tokens);
            seen.insert(tokens.begin(), tokens.end());
        }
        EXPECT_GE(*seen.begin(), 1);
        EXPECT_LT(*seen.rbegin(), data.vocabulary);
        EXPECT_GT(seen.size(), 25U);
    }
}

// Of several carriage returns one belongs to the line's end; blank lines belong to no record.
TEST_F(Records, AreReadAsTheyWereCounted) {
    RecordSamples samples =
        read("f.tsv", "1\ta\r\r\n\r\n\n0\t\r\r\n1\tc", {.towers = 1, .length = 5});
    ASSERT_EQ(samples.samples(), 3);
    EXPECT_EQ(text_of(samples, 0), "a\r");
    EXPECT_EQ(text_of(samples, 1), "\r");
    EXPECT_EQ(text_of(samples, 2), "c");
    RecordSamples quoted = read("f.csv", "1,\"a\n\"\r\n\n0,b\n");
    EXPECT_EQ(text_of(quoted, 0), "a\n");
    EXPECT_EQ(text_of(quoted, 1), "b");
}

TEST_F(Records, ThatAreWrongAreNamedByTheirLine) {
    expect_refused("f.tsv", "", " holds no samples: give a label and a text a line");
    expect_refused("f.tsv", "only a text\n", ":1: expected a label and a text, but found 1 field");
    expect_refused("f.tsv", "1\ta\n\n0\tb\tc\n", ":3: 3 fields, but the first line has 2");
    expect_refused("f.tsv", "1\ta\n0\t\n", ":2: the text is empty");
    expect_refused("f.tsv", "1\tabcdef\n", ":1: the text has 6 bytes, but length allows 5",
                   {.towers = 1, .length = 5});
    expect_refused("f.csv", "1,\"a\nb\nc", ":1: a quote is not closed");
    expect_refused("f.csv", "1,a\n1,\"b\nb\"\n0,\"c\"d\n", ":4: a quote is not closed, or text");
    expect_refused("f.jsonl", "{\"label\": 1, \"text\": \"a\"}\n[1]\n", ":2: expected an object");
    expect_refused("f.jsonl", "{\"label\": 1, \"text1\": \"a\"}\n",
                   ":1: expected an object with label and text1 and text2",
                   {.towers = 2, .length = 5});
    std::string labels;
    for (int i = 0; i < 1025; ++i) labels += fmt::format("{}\ta\n", i);
    expect_refused("f.tsv", labels, ":1025: '1024' is label 1025, but at most 1024 are allowed");
    expect_error<UserError>([] { record_form("data.txt"); }, "data.txt does not say its form");
    RecordSamples samples = read("f.tsv", "1\ta\n2\tb\n");
    expect_error<UserError>(
        [&] {
            samples.number_labels({"1", "3"});
        },
        "has the label '2', which no training sample has");
}

// Pieces of every size give the records of the whole.
TEST(RecordCutter, CutsPiecesAlike) {
    const std::string text = "a,\"b\n\n\"\"c\"\r\n\nd\n\"e\n\"";
    using Found = std::vector<std::tuple<std::string, std::int64_t, std::int64_t>>;
    Found whole;
    for (std::size_t size = text.size(); size > 0; --size) {
        Found found;
        RecordCutter cutter(true, [&](std::string_view record, std::int64_t line,
                                      std::int64_t end) { found.emplace_back(record, line, end); });
        for (std::size_t at = 0; at < text.size(); at += size) cutter.add(text.substr(at, size));
        cutter.finish();
        if (whole.empty()) whole = found;
        EXPECT_EQ(found, whole) << size;
    }
    EXPECT_EQ(whole,
              (Found{{"a,\"b\n\n\"\"c\"", 1, 12}, {"", 4, 13}, {"d", 5, 15}, {"\"e\n\"", 6, 19}}));
}

// Random fields, written as RFC 4180 says and read back.
TEST(SplitCsv, ReadsWhatWasQuoted) {
    std::mt19937 random(11);
    for (int round = 0; round < 500; ++round) {
        std::vector<std::string> fields(1 + random() % 4);
        std::string record;
        for (std::string& field : fields) {
            for (unsigned n = random() % 6; n > 0; --n) field += "ab,\"\n\t "[random() % 7];
            std::string quoted = field;
            for (std::size_t at = 0; (at = quoted.find('"', at)) != std::string::npos; at += 2) {
                quoted.insert(at, 1, '"');
            }
            record += (&field == &fields.front() ? "\"" : ",\"") + quoted + '"';
        }
        EXPECT_EQ(split_csv(record), fields) << record;
    }
}

// A split that is there is taken, another is held out; no sample is in two.
TEST(TextTask, FindsOrHoldsOutSplits) {
    const ScratchFolder folder;
    std::string rows;
    for (int i = 0; i < 50; ++i) rows += fmt::format("{}\ttext {}\n", i % 3, i);
    folder.write("train.tsv", rows);
    folder.write("dev.tsv", "2\tmore\n");
    TrainSettings settings = preset_settings("paper", "text");
    settings.data = folder.path().string();
    settings.samples.test = 7;
    const TaskData data = task_named("text").load(settings, [](std::string_view) {});
    EXPECT_EQ(data.classes, 3);
    EXPECT_EQ(data.train->samples(), 43);
    EXPECT_EQ(data.test->samples(), 7);
    ASSERT_EQ(data.validation->samples(), 1);
    EXPECT_EQ(text_of(*data.validation, 0), "more");
    EXPECT_EQ(data.validation->label(0), 2);
    std::set<std::string> seen;
    for (const auto& split : {data.train, data.test}) {
        for (std::int64_t i = 0; i < split->samples(); ++i) seen.insert(text_of(*split, i));
    }
    EXPECT_EQ(seen.size(), 50U);
    settings.samples.test = 50;
    expect_error<UserError>([&] { task_named("text").load(settings, [](std::string_view) {}); },
                            "leave none to train on");
    settings.data = folder.file("train.tsv");
    settings.samples = {.train = 10, .validation = 5, .test = 0};  // a tenth
    const TaskData one = task_named("text").load(settings, [](std::string_view) {});
    EXPECT_EQ(one.train->samples(), 10);
    EXPECT_EQ(one.validation->samples(), 5);
    EXPECT_EQ(one.test->samples(), 5);
}

TEST(TextTask, ReadsFoldersOfReviews) {
    const ScratchFolder folder;
    for (const char* name : {"train/neg", "train/pos", "train/unsup", "test/neg", "test/pos"}) {
        std::filesystem::create_directories(folder.file(name));
        for (int i = 0; i < 10; ++i) {
            folder.write(fmt::format("{}/{}_7.txt", name, i), fmt::format("{} {}", name, i));
        }
    }
    TrainSettings settings = preset_settings("paper", "text");
    settings.data = folder.path().string();
    settings.samples.validation = 4;
    const TaskData data = task_named("text").load(settings, [](std::string_view) {});
    EXPECT_EQ(data.classes, 2);
    EXPECT_EQ(data.train->samples(), 16);
    EXPECT_EQ(data.validation->samples(), 4);
    EXPECT_EQ(data.test->samples(), 20);
    for (std::int64_t i = 0; i < 20; ++i) {
        EXPECT_EQ(data.test->label(i), text_of(*data.test, i).starts_with("test/pos") ? 1 : 0);
    }
}

TEST(RetrievalTask, NamesTheFilesThatHaveIdsOnly) {
    const ScratchFolder folder;
    folder.write("new_aan_pairs.eval.only_ids.tsv", "1\ta\tb\n");
    TrainSettings settings = preset_settings("paper", "retrieval");
    settings.data = folder.path().string();
    expect_error<UserError>(
        [&] { task_named("retrieval").load(settings, [](std::string_view) {}); },
        "holds the pairs by their ids only");
    expect_error<UserError>(
        [] { task_named("speech"); },
        "'speech' is no task; choose one of listops, image, text, retrieval, pathfinder");
}

}  // namespace
}  // namespace spion
