// Runs the `spion` command as a user would, and keeps what it said.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "tests/support/scratch_folder.h"

namespace spion {

struct CommandResult {
    int exit_code;  // -1 when a signal ended it
    std::string out, err;
};

// `arguments` as for a shell.
inline CommandResult run_command(const std::string& arguments) {
    const ScratchFolder folder;
    const std::string out = folder.file("out"), err = folder.file("err");
    const std::string command =
        std::string(SPION_COMMAND) + " " + arguments + " >" + out + " 2>" + err + " </dev/null";
    const int status = std::system(command.c_str());
    const auto read = [](const std::string& path) {
        std::ifstream file(path, std::ios::binary);
        return std::string(std::istreambuf_iterator<char>(file), {});
    };
    return {.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1,
            .out = read(out),
            .err = read(err)};
}

// Exit code 2, nothing on stdout, one line on stderr that holds every one of `parts`.
inline void expect_refused(const std::string& arguments, const std::vector<std::string>& parts) {
    SCOPED_TRACE("spion " + arguments);
    const CommandResult result = run_command(arguments);
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_EQ(result.out, "");
    EXPECT_EQ(result.err.rfind("spion: ", 0), 0U) << result.err;
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
    for (const std::string& part : parts) {
        EXPECT_NE(result.err.find(part), std::string::npos)
            << "without '" << part << "': " << result.err;
    }
}

}  // namespace spion
