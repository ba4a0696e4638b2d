// The table of environment variables: what it reads, what it refuses, and that the document lists
// exactly what it holds.
#include "runtime/environment.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

#include "ir/error.h"
#include "tests/support/environment.h"
#include "tests/support/expect_error.h"

namespace spion {
namespace {

TEST(EnvironmentTable, ReadsValuesAndTakesEmptyForUnset) {
    const Environment set("SPION_CACHE_DIR", "/a folder");
    EXPECT_EQ(environment_value("SPION_CACHE_DIR"), "/a folder");
    const Environment empty("SPION_CACHE_DIR", "");
    EXPECT_EQ(environment_value("SPION_CACHE_DIR"), std::nullopt);
    const Environment unset("SPION_CACHE_DIR", std::nullopt);
    EXPECT_EQ(environment_value("SPION_CACHE_DIR"), std::nullopt);
}

TEST(EnvironmentTable, KnowsNoNameOutsideOfIt) {
    expect_error<InternalError>([] { environment_value("SPION_CACHE_DIRECTORY"); },
                                "SPION_CACHE_DIRECTORY is not in the table");
}

TEST(EnvironmentTable, SwitchesAreZeroOrOne) {
    for (const bool otherwise : {false, true}) {
        const Environment unset("SPION_VERBOSE", std::nullopt);
        EXPECT_EQ(environment_switch("SPION_VERBOSE", otherwise), otherwise);
        const Environment off("SPION_VERBOSE", "0");
        EXPECT_FALSE(environment_switch("SPION_VERBOSE", otherwise));
        const Environment on("SPION_VERBOSE", "1");
        EXPECT_TRUE(environment_switch("SPION_VERBOSE", otherwise));
        const Environment wrong("SPION_VERBOSE", "yes");
        expect_error<UserError>(
            [&] { environment_switch("SPION_VERBOSE", otherwise); },
            fmt::format("SPION_VERBOSE is 'yes', but must be 0 or 1: unset it for {}",
                        otherwise ? 1 : 0));
    }
}

TEST(EnvironmentTable, NamesWhatIsSetButNotRead) {
    const Environment misspelt("SPION_CACHE_DIT", "/cache");
    const Environment of_tests("SPION_TEST_SEED", "7");
    EXPECT_EQ(unknown_environment_variables(), std::vector<std::string>{"SPION_CACHE_DIT"});
}

// Every row of the document is a variable of the table and says the same, and the reverse.
TEST(EnvironmentTable, TheDocumentListsTheSame) {
    std::ifstream file(std::filesystem::path(SPION_SOURCE_ROOT) / "docs/environment.md");
    std::set<std::string> written, wanted;
    for (std::string line; std::getline(file, line);) {
        if (line.starts_with("| `")) written.insert(line);
    }
    for (const EnvironmentVariable& variable : environment_variables()) {
        wanted.insert(
            fmt::format("| `{}` | {} | {} |", variable.name, variable.allowed, variable.meaning));
    }
    EXPECT_EQ(written, wanted);
}

}  // namespace
}  // namespace spion
