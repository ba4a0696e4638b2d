// Runs a fuzz target on its seeds and on random edits of them; it ends the process where its
// property is broken.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "tests/support/random_case.h"
#include "tests/support/seed.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace spion {
namespace {

void run_on(const std::string& text) {
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
}

std::vector<std::string> seeds() {
    std::vector<std::string> texts;
    for (const auto& entry : std::filesystem::directory_iterator(SPION_FUZZ_SEEDS)) {
        std::ifstream file(entry.path(), std::ios::binary);
        texts.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    }
    std::sort(texts.begin(), texts.end());
    return texts;
}

// Changes a byte, drops or repeats a stretch, or ends the text.
std::string edited(std::mt19937_64& random, std::string text) {
    constexpr std::string_view kLetters = "0129-.e{}[]\"',:=#\n\\\xFF\xC3";
    const auto at = static_cast<std::size_t>(pick(random, 0, static_cast<int>(text.size()) - 1));
    const auto length = static_cast<std::size_t>(pick(random, 1, 24));
    switch (pick(random, 0, 3)) {
        case 0:
            text[at] = kLetters[static_cast<std::size_t>(
                pick(random, 0, static_cast<int>(kLetters.size()) - 1))];
            break;
        case 1:
            text.erase(at, length);
            break;
        case 2:
            text.insert(at, text.substr(at, length));
            break;
        default:
            text.resize(at);
    }
    return text.empty() ? "0" : text;
}

TEST(FuzzSeeds, HoldTheProperty) {
    const std::vector<std::string> texts = seeds();
    ASSERT_GE(texts.size(), 2U);
    for (const std::string& text : texts) run_on(text);
    run_on("");
}

TEST(FuzzSeeds, HoldItWithRandomEdits) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    const std::vector<std::string> texts = seeds();
    for (int round = 0; round < 400; ++round) {
        std::string text =
            texts[static_cast<std::size_t>(pick(random, 0, static_cast<int>(texts.size()) - 1))];
        for (int edits = pick(random, 1, 3); edits > 0; --edits) {
            text = edited(random, std::move(text));
        }
        run_on(text);
    }
}

}  // namespace
}  // namespace spion
