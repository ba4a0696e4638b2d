// Where letters beyond ASCII are found in TOML: texts are put together from pieces of known kind.
#include "train/toml_letters.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "tests/support/random_case.h"
#include "tests/support/seed.h"

namespace spion {
namespace {

std::string found(std::string_view text) {
    const auto fault = find_letter_fault(text);
    return fault ? fmt::format("{}:{}: {}", fault->line, fault->column, fault->what) : "";
}

TEST(TomlLetters, KnowsUtf8) {
    for (const char* text : {"\xC0\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\x80", "a\xE2\x82"}) {
        EXPECT_FALSE(is_utf8(text));
    }
    for (const char* text : {"", "abc", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80"}) {
        EXPECT_TRUE(is_utf8(text));
    }
}

TEST(TomlLetters, AreAllowedInStringsAndComments) {
    for (const char* text :
         {"", "# \xC3\xA9", "a = \"\xC3\xA9\\\"\xC3\xA9\"", "a = '\xC3\xA9\\' # '\xC3\xA9",
          "a = \"\"\"\"\xC3\xA9\n\"\"\xC3\xA9\"\"\"\"\" # \xC3\xA9",
          "a = '''\xC3\xA9\n'\xC3\xA9'''", "\xEF\xBB\xBF# \xC3\xA9", "a = \"\" # \xC3\xA9",
          "'\xC3\xA9' = 1\n\"\xC3\xA9\" = 2"}) {
        EXPECT_EQ(found(text), "") << text;
    }
}

TEST(TomlLetters, AreRefusedElsewhereWithTheirPlace) {
    EXPECT_EQ(found("a = 1\r\n\xE2\x82\xAC = 2"),
              "2:1: the letter U+20AC stands outside strings and comments, where TOML has ASCII "
              "alone; put it between quotes");
    EXPECT_EQ(found("a = '\xC3\xA9' \xC3\xA9").substr(0, 5), "1:9: ");
    EXPECT_EQ(found("\xEF\xBB\xBF\xF0\x9F\x98\x80").substr(0, 23), "1:1: the letter U+1F600");
    EXPECT_EQ(found("a = ''''''\xC3\xA9").substr(0, 6), "1:11: ");
    EXPECT_EQ(found("a = 1\n# \xC3\xA9 \xFF"),
              "2:5: the byte 0xFF begins no letter of UTF-8, in which TOML is written; save the "
              "file as UTF-8");
}

TEST(TomlLetters, AStringThatItsLineDoesNotCloseEndsTheSearch) {
    EXPECT_EQ(found("a = \"b\n\xC3\xA9"), "");
    EXPECT_EQ(found("a = '''b\n\xC3\xA9"), "");
}

std::string words(std::mt19937_64& random, std::string_view alphabet) {
    std::string text;
    for (int left = pick(random, 0, 6); left > 0; --left) {
        const int letter = pick(random, -2, static_cast<int>(alphabet.size()) - 1);
        text += letter < 0 ? std::string("\xC3\xA9")
                           : std::string(1, alphabet[static_cast<std::size_t>(letter)]);
    }
    return text;
}

// A piece in which every letter may stand.
std::string sheltered(std::mt19937_64& random) {
    const auto closing = [&](char quote) {
        return std::string(static_cast<std::size_t>(pick(random, 3, 5)), quote);
    };
    switch (pick(random, 0, 4)) {
        case 0:
            return fmt::format("#{}\n", words(random, "\"'\\# \t="));
        case 1:
            return fmt::format("\"{}\\\"{}\" ", words(random, "'# ="), words(random, "'# ="));
        case 2:
            return fmt::format("'{}' ", words(random, "\"\\# ="));
        case 3:
            return fmt::format("\"\"\"{}\"\"{}\\\"x{} ", words(random, "'# =\n"),
                               words(random, "# '\n"), closing('"'));
        default:
            return fmt::format("'''{}''x{} ", words(random, "\"\\# =\n"), closing('\''));
    }
}

TEST(TomlLetters, TheFirstBareOneIsFoundAmongPieces) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    for (int round = 0; round < 2000; ++round) {
        std::string before;
        for (int pieces = pick(random, 0, 8); pieces > 0; --pieces) {
            before += pick(random, 0, 2) == 0 ? "key = 1\n" : sheltered(random);
        }
        ASSERT_EQ(found(before), "") << before;
        int line = 1, column = 1;
        for (const char c : before) {
            if (c == '\n') {
                ++line;
                column = 1;
            } else if (c != '\xA9') {  // the second byte of the only letter of two
                ++column;
            }
        }
        const std::string text = before + "\xC3\xBC" + sheltered(random) + "\xC3\xA9";
        ASSERT_EQ(found(text).substr(0, found(text).find(" stands")),
                  fmt::format("{}:{}: the letter U+00FC", line, column))
            << text;
    }
}

}  // namespace
}  // namespace spion
