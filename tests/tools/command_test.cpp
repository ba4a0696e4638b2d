// The command line as scripts see it: exit codes, sentences on stderr, nothing else on stdout.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include <fmt/format.h>

#include "tests/support/run_command.h"
#include "tools/exit_codes.h"

namespace spion {
namespace {

TEST(Command, WithoutArgumentsPrintsItsHelp) {
    const auto result = run_command("");
    EXPECT_EQ(result.exit_code, 0);
    EXPECT_EQ(result.err, "");
    for (const char* part : {"Usage: spion", "verify", "bench", "discover", "Examples:"}) {
        EXPECT_NE(result.out.find(part), std::string::npos) << part;
    }
    EXPECT_EQ(run_command("--help").out, result.out);
}

// The lines of the help and of the document's table, as "code meaning", are those of the header.
TEST(Command, HelpAndDocumentGiveTheSameExitCodes) {
    const std::string help = run_command("--help").out;
    std::ifstream file(SPION_SOURCE_ROOT "/docs/command.md");
    const std::string document{std::istreambuf_iterator<char>(file), {}};
    std::string in_help = "Exit codes:\n", in_document = "| code | meaning |\n|---|---|\n";
    for (const auto& [code, meaning] : kExitCodes) {
        in_help += fmt::format("  {:<4} {}\n", static_cast<int>(code), meaning);
        in_document += fmt::format("| {} | {} |\n", static_cast<int>(code), meaning);
    }
    EXPECT_NE(help.find(in_help), std::string::npos) << help;
    EXPECT_NE(document.find(in_document + "\n"), std::string::npos) << in_document;
}

TEST(Command, EveryCommandHasHelp) {
    for (const char* command :
         {"verify", "bench", "bench attention", "bench summary", "bench anchors", "discover",
          "compile", "cache", "cache list", "cache verify", "cache clear", "sweep"}) {
        const auto result = run_command(std::string(command) + " --help");
        EXPECT_EQ(result.exit_code, 0) << command;
        EXPECT_EQ(result.err, "") << command;
        EXPECT_NE(result.out.find("--help"), std::string::npos) << command;
    }
}

TEST(Command, PrintsItsVersion) {
    const auto result = run_command("--version");
    EXPECT_EQ(result.exit_code, 0);
    EXPECT_EQ(result.out.rfind("spion ", 0), 0U);
    EXPECT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 1);
}

TEST(Command, UnknownWordsAreNamedBesideTheKnown) {
    expect_refused("vrify", {"vrify", "verify", "bench", "discover"});
    expect_refused("--fast", {"--fast", "--version", "verify"});
    expect_refused("verify --blok 16", {"`spion verify`", "--blok", "--block", "--softmax"});
    expect_refused("bench", {"`spion bench`", "attention, summary, anchors"});
    expect_refused("bench attnetion", {"attnetion", "attention, summary, anchors"});
}

TEST(Command, ValuesOfTheWrongTypeAreNamed) {
    expect_refused("verify --block wide", {"--block", "wide", "16, 32, 64 or 128"});
    expect_refused("verify --lengths 1,x", {"--lengths", "1 x"});
    expect_refused("bench attention --repeat", {"--repeat"});
}

TEST(Command, AFullDiskIsNotSuccess) {
    if (!std::filesystem::exists("/dev/full")) {
        GTEST_SKIP() << "there is no /dev/full";
    }
    const int status = std::system(SPION_COMMAND " --help >/dev/full 2>/dev/null");
    EXPECT_EQ(WEXITSTATUS(status), 2);
}

}  // namespace
}  // namespace spion
