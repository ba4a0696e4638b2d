// Replays the fuzz target's corpus, and random edits of it.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "tests/fuzz/ir_property.h"
#include "tests/support/random_case.h"
#include "tests/support/seed.h"

namespace spion {
namespace {

std::vector<std::string> corpus() {
    std::vector<std::string> texts;
    const std::filesystem::path folder = std::filesystem::path(SPION_TEST_DATA) / "corpus";
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        std::ifstream file(entry.path(), std::ios::binary);
        texts.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    }
    std::sort(texts.begin(), texts.end());
    return texts;
}

TEST(IrCorpus, HoldsForEveryText) {
    const std::vector<std::string> texts = corpus();
    EXPECT_GE(texts.size(), 10U);
    int accepted = 0;
    for (const std::string& text : texts) {
        EXPECT_EQ(broken_property(text), "") << text;
        try {
            parse_ir(text, "text");
            ++accepted;
        } catch (const UserError&) {
        }
    }
    EXPECT_GE(accepted, 5) << "the corpus should hold good texts";
    EXPECT_LE(accepted + 3, static_cast<int>(texts.size())) << "and bad ones";
}

// Changes a byte, drops or repeats a stretch, or brings a stretch of another text.
std::string edited(std::mt19937_64& random, std::string text, const std::string& other) {
    const auto place = [&](const std::string& in) {
        return static_cast<std::size_t>(pick(random, 0, static_cast<int>(in.size())));
    };
    const std::size_t at = place(text);
    const auto length = static_cast<std::size_t>(pick(random, 1, 12));
    switch (pick(random, 0, 3)) {
        case 0:
            text.insert(at, 1, " \n0123456789=./:x()+-*<>?,"[pick(random, 0, 25)]);
            break;
        case 1:
            text.erase(at, length);
            break;
        case 2:
            text.insert(at, text.substr(at, length));
            break;
        default:
            text.replace(at, std::min(length, text.size() - at),
                         other.substr(std::min(place(other), other.size()), length));
    }
    return text;
}

TEST(IrCorpus, HoldsForRandomEdits) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    const std::vector<std::string> texts = corpus();
    ASSERT_FALSE(texts.empty());
    const auto any = [&]() -> const std::string& {
        return texts[static_cast<std::size_t>(pick(random, 0, static_cast<int>(texts.size()) - 1))];
    };
    for (int round = 0; round < 5000; ++round) {
        std::string text = any();
        for (int edits = pick(random, 1, 3); edits > 0; --edits) {
            text = edited(random, text, any());
        }
        ASSERT_EQ(broken_property(text), "") << text;
    }
}

}  // namespace
}  // namespace spion
