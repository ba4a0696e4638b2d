// Replays the seeds of the fuzz targets for arrays and patterns, and random edits of them. The
// seeds are the files of tests/io/goldens, which other libraries wrote.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "tests/fuzz/io_property.h"
#include "tests/support/random_case.h"
#include "tests/support/seed.h"

namespace spion {
namespace {

std::vector<std::string> corpus() {
    std::vector<std::string> files;
    const std::filesystem::path folder = SPION_SOURCE_ROOT "/tests/io/goldens";
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        files.emplace_back(read_bytes(entry.path().string()).view);
    }
    std::sort(files.begin(), files.end());
    return files;
}

TEST(IoCorpus, HoldsForEveryFile) {
    const std::vector<std::string> files = corpus();
    EXPECT_GE(files.size(), 40U);
    int arrays = 0, patterns = 0;
    for (const std::string& file : files) {
        EXPECT_EQ(broken_array_property(file), "");
        EXPECT_EQ(broken_pattern_property(file), "");
        try {
            parse_pattern(own(file), "given", "", {.block = 16, .length = 72});
            ++patterns;
        } catch (const UserError&) {
        }
        try {
            parse_array(own(file), "given", "");
            ++arrays;
        } catch (const UserError&) {
        }
    }
    EXPECT_GE(arrays, 20) << "the corpus should hold good files";
    EXPECT_GE(patterns, 10);
}

// Changes a byte, drops or repeats a stretch, or brings a stretch of another file.
std::string edited(std::mt19937_64& random, std::string text, const std::string& other) {
    const auto place = [&](const std::string& in) {
        return static_cast<std::size_t>(pick(random, 0, static_cast<int>(in.size()) - 1));
    };
    const std::size_t at = place(text);
    const auto length = static_cast<std::size_t>(pick(random, 1, 24));
    switch (pick(random, 0, 4)) {
        case 0:
            text[at] = static_cast<char>(random());
            break;
        case 1:
            text[at] = "0129,{}[]<>'\"\xFF\x7F"[pick(random, 0, 14)];
            break;
        case 2:
            text.erase(at, length);
            break;
        case 3:
            text.insert(at, text.substr(at, length));
            break;
        default:
            text.replace(at, length, other.substr(place(other), length));
    }
    return text.empty() ? "0" : text;
}

TEST(IoCorpus, HoldsForRandomEdits) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    const std::vector<std::string> files = corpus();
    ASSERT_FALSE(files.empty());
    const auto any = [&]() -> const std::string& {
        return files[static_cast<std::size_t>(pick(random, 0, static_cast<int>(files.size()) - 1))];
    };
    for (int round = 0; round < 3000; ++round) {
        std::string file = any();
        for (int edits = pick(random, 1, 3); edits > 0; --edits) {
            file = edited(random, std::move(file), any());
        }
        ASSERT_EQ(broken_array_property(file), "") << testing::PrintToString(file);
        ASSERT_EQ(broken_pattern_property(file), "") << testing::PrintToString(file);
    }
}

}  // namespace
}  // namespace spion
