#include "train/data/lra_pickle.h"

#include <gtest/gtest.h>

#include "ir/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/scratch_folder.h"
#include "tests/train/files.h"

namespace spion {
namespace {

using Tokens = std::vector<std::uint16_t>;

Tokens tokens_of(const Samples& samples, std::int64_t index, int tower) {
    Tokens tokens;
    samples.read(index, tower, tokens);
    return tokens;
}

TEST(LraPickle, HoldsFinalIdsOfOneOrTwoTowers) {
    const ScratchFolder folder;
    const std::string bytes =
        read_file(std::string(SPION_TEST_DATA) + "/data/goldens/retrieval.pickle");
    TrainSettings settings = preset_settings("paper", "retrieval");
    settings.data = folder.path().string();
    const auto say = [](std::string_view) {};
    EXPECT_FALSE(load_lra_pickles(settings, "retrieval", 2, true, say));
    folder.write("lra-retrieval.train.pickle", bytes);
    expect_error<UserError>([&] { load_lra_pickles(settings, "retrieval", 2, true, say); },
                            "but no retrieval.dev.pickle");
    folder.write("lra-retrieval.dev.pickle", bytes);
    folder.write("lra-retrieval.test.pickle", bytes);
    const TaskData pairs = task_named("retrieval").load(settings, say);
    EXPECT_EQ(pairs.classes, 2);
    EXPECT_EQ(pairs.vocabulary, 10);
    ASSERT_EQ(pairs.train->samples(), 2);
    EXPECT_EQ(pairs.train->towers(), 2);
    EXPECT_EQ(pairs.train->label(0), 1);
    EXPECT_EQ(pairs.train->label(1), 0);
    EXPECT_EQ(tokens_of(*pairs.train, 0, 0), (Tokens{5, 0, 7}));
    EXPECT_EQ(tokens_of(*pairs.train, 0, 1), (Tokens{1, 2}));
    EXPECT_EQ(tokens_of(*pairs.test, 1, 0), (Tokens{0, 0, 0, 9}));
    const auto pixels = load_lra_pickles(settings, "retrieval", 1, false, say);
    ASSERT_TRUE(pixels);
    EXPECT_EQ(tokens_of(*pixels->validation, 0, 0), (Tokens{5, 0, 7, 0}));
    settings.ngram = 3;
    expect_error<UserError>([&] { load_lra_pickles(settings, "retrieval", 2, true, say); },
                            "ngram is 3, but ");
    settings.ngram = 1;
    settings.length = 3;
    expect_error<UserError>([&] { load_lra_pickles(settings, "retrieval", 2, true, say); },
                            "a sequence has 4 tokens, but length allows 3");
    expect_error<UserError>([&] { load_lra_pickles(settings, "retrieval", 3, true, say); },
                            "has no 'input_ids_2'");
}

}  // namespace
}  // namespace spion
