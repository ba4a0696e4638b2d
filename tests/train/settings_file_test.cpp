// Settings as TOML: every string that a run may hold reads back from its own config.toml, and what a
// file may say and may not.
#include "train/settings_file.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <limits>
#include <random>
#include <string>

#include "ir/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/seed.h"
#include "train/toml_letters.h"

namespace spion {
namespace {

TrainSettings read_back(const ScratchFolder& folder, const std::string& text) {
    TrainSettings settings;
    apply_settings_file(settings, folder.write("settings.toml", text));
    return settings;
}

void append_utf8(std::string& text, char32_t code) {
    const auto more = [&](int shift) {
        text += static_cast<char>(0x80 | ((code >> shift) & 0x3F));
    };
    if (code < 0x80) {
        text += static_cast<char>(code);
    } else if (code < 0x800) {
        text += static_cast<char>(0xC0 | (code >> 6));
        more(0);
    } else if (code < 0x10000) {
        text += static_cast<char>(0xE0 | (code >> 12));
        more(6);
        more(0);
    } else {
        text += static_cast<char>(0xF0 | (code >> 18));
        more(12);
        more(6);
        more(0);
    }
}

// Mostly what TOML gives a meaning to.
std::string random_text(std::mt19937_64& random) {
    constexpr std::string_view kSpecial = "\"'\\#=[]{}\n\r\t ,.\b\f\x7F";
    std::string text;
    for (auto left = random() % 24; left > 0; --left) {
        switch (random() % 5) {
            case 0:
                append_utf8(text, static_cast<char32_t>(random() % 0x80));  // NUL included
                break;
            case 1:
                append_utf8(text, static_cast<char32_t>(0x80 + random() % (0xD800 - 0x80)));
                break;
            case 2:
                append_utf8(text, static_cast<char32_t>(0xE000 + random() % (0x110000 - 0xE000)));
                break;
            default:
                text += kSpecial[random() % kSpecial.size()];
        }
    }
    return text;
}

TEST(SettingsFile, AnyStringReadsBack) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    const ScratchFolder folder;
    for (int repeat = 0; repeat < 400; ++repeat) {
        TrainSettings settings;
        settings.data = random_text(random);
        ASSERT_TRUE(is_utf8(settings.data)) << toml_string(settings.data);
        const std::string text = to_toml(settings);
        const TrainSettings again = read_back(folder, text);
        ASSERT_EQ(again.data, settings.data) << text;
        ASSERT_EQ(to_toml(again), text);
    }
}

TEST(SettingsFile, SeedsBeyondTheIntegersOfTomlReadBack) {
    const ScratchFolder folder;
    for (const std::uint64_t seed :
         {std::uint64_t{0}, std::uint64_t{1} << 62, (std::uint64_t{1} << 63) - 1,
          std::uint64_t{1} << 63, std::numeric_limits<std::uint64_t>::max()}) {
        TrainSettings settings;
        settings.seed = seed;
        EXPECT_EQ(read_back(folder, to_toml(settings)).seed, seed);
    }
}

TEST(SettingsFile, TakesWhatTomlAllows) {
    const ScratchFolder folder;
    const TrainSettings settings =
        read_back(folder,
                  "\xEF\xBB\xBF# a byte-order mark stands before this\r\n"
                  "steps = 1_000 # and a comment after\r\n"
                  "weight-decay = +0.01\r\n"
                  "\"seed\" = 0x1F\n"
                  "lr = 5e-4\n"
                  "quantile = 1\n"
                  "batch = \"8\"\n"
                  "dense = true\n"
                  "data = '''C:\\data #1'''\n"
                  "variant = \"\\u0063\"\n");
    EXPECT_EQ(settings.steps, 1000);
    EXPECT_EQ(settings.weight_decay, 0.01);
    EXPECT_EQ(settings.seed, 31U);
    EXPECT_EQ(settings.learning_rate, 5e-4);
    EXPECT_EQ(settings.discovery.quantile, 1.0);
    EXPECT_EQ(settings.batch, 8);
    EXPECT_TRUE(settings.dense);
    EXPECT_EQ(settings.data, "C:\\data #1");
    EXPECT_EQ(settings.discovery.variant, Variant::kC);
}

void expect_refused(const std::string& text, const std::string& sentence) {
    const ScratchFolder folder;
    const std::string file = folder.write("s.toml", text);
    TrainSettings settings;
    expect_error<UserError>([&] { apply_settings_file(settings, file); },
                            fmt::format("{}{}", file, sentence));
}

TEST(SettingsFile, SaysWhereAFileIsWrong) {
    expect_refused("seed = 1\n\nseed = 2\n", ":3:8: the key 'seed' is given twice");
    expect_refused("seed = 1\n  steps = 0\n",
                   ":2:3: steps is '0', but it takes a whole number of at least 1");
    expect_refused("batch = 2\nstep = 6\n", ":2:1: step is no setting of train listops");
    expect_refused("batch = 2\n[model]\nlayers = 2\n", ":2:2: model is not of the form");
    expect_refused("batch = [2, 3]\n", ":1:1: batch is not of the form setting = value");
    expect_refused("batch = 1979-05-27\n", ":1:1: batch is not of the form setting = value");
    expect_refused("seed = 01\n", ":1:");
    expect_refused("data = \"a\nb\"\n", ":1:");
    expect_refused("data = \"a", ":1:");
    expect_refused("data = \"\xFF\"\n", ":1:9: the byte 0xFF begins no letter of UTF-8");
    expect_refused("seed = 1\n  \xC3\xA9tapes = 2\n",
                   ":2:3: the letter U+00E9 stands outside strings and comments");
    expect_refused("steps\n", ":1:");
    expect_refused("lr = inf\n", ":1:1: lr is 'inf', but it takes a number of at least 0");
    expect_refused("seed = -1\n", ":1:1: seed is '-1', but it takes a whole number of at least 0");
}

// The first mistake of the file is the one that is named, whatever the alphabet says.
// The parser quotes what it read, the end of the line too.
TEST(SettingsFile, SaysItOnOneLine) {
    try {
        const ScratchFolder folder;
        read_settings_file(folder.write("s.toml", "dense = f\n"));
        FAIL() << "nothing was refused";
    } catch (const UserError& error) {
        EXPECT_EQ(std::string_view(error.what()).find('\n'), std::string_view::npos)
            << error.what();
    }
}

TEST(SettingsFile, IsReadInItsOrder) {
    expect_refused("steps = 0\nbatch = 0\n", ":1:1: steps is '0'");
    expect_refused("batch = 0\nsteps = 0\n", ":1:1: batch is '0'");
}

TEST(SettingsFile, RefusesAFolderAndWhatIsNotThere) {
    const ScratchFolder folder;
    TrainSettings settings;
    expect_error<UserError>([&] { apply_settings_file(settings, folder.path()); },
                            fmt::format("the settings file {} cannot be read (it is a folder)",
                                        folder.path().string()));
    expect_error<UserError>([&] { apply_settings_file(settings, folder.file("none.toml")); },
                            "cannot be read (No such file or directory)");
}

TEST(SettingsFile, AStringThatNoTomlCouldHoldIsRefusedAtOnce) {
    TrainSettings settings;
    expect_error<UserError>([&] { apply_setting(settings, "data", "caf\xE9", "--data"); },
                            "--data names a folder that is not UTF-8");
}

}  // namespace
}  // namespace spion
