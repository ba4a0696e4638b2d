// The command as a process of its own, for tests of `spion train` and its relatives.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/scratch_folder.h"
#include "tests/train/files.h"
#include "tests/train/test_cache.h"

namespace spion::test {

using Arguments = std::vector<std::string>;

// `spion train listops` on the host, of a model whose steps take a millisecond; `more` comes last.
inline Arguments tiny_listops(const std::string& out, int layers, const Arguments& more) {
    Arguments arguments = {"train",
                           "listops",
                           "--out",
                           out,
                           "--device",
                           "cpu",
                           "--length",
                           "64",
                           "--min-length",
                           "10",
                           "--max-length",
                           "60",
                           "--layers",
                           std::to_string(layers),
                           "--heads",
                           "1",
                           "--head-dim",
                           "16",
                           "--d-model",
                           "16",
                           "--feed-forward",
                           "16",
                           "--block",
                           "16",
                           "--train-samples",
                           "50",
                           "--validation-samples",
                           "5"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
}

using Variables = std::vector<std::pair<std::string, std::string>>;

// Starts the command with its output in `folder`/out and /err, `name` appended, the tests' kernel
// cache and these variables, in the working directory `at` if one is given.
inline pid_t start(const ScratchFolder& folder, const Arguments& arguments,
                   const Variables& variables = {}, const std::string& name = "",
                   const std::string& at = "") {
    std::vector<std::string> words = {SPION_COMMAND};
    words.insert(words.end(), arguments.begin(), arguments.end());
    std::vector<char*> pointers;
    for (std::string& word : words) pointers.push_back(word.data());
    pointers.push_back(nullptr);
    const std::string out = folder.file("out" + name), err = folder.file("err" + name);
    const std::string cache = test_cache_root()->string();
    const pid_t child = ::fork();
    if (child == 0) {
        ::setenv("SPION_CACHE_DIR", cache.c_str(), 1);
        for (const auto& [variable, value] : variables) {
            ::setenv(variable.c_str(), value.c_str(), 1);
        }
        if (!at.empty() && ::chdir(at.c_str()) != 0) ::_exit(126);
        ::dup2(::open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), STDOUT_FILENO);
        ::dup2(::open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), STDERR_FILENO);
        ::execv(SPION_COMMAND, pointers.data());
        ::_exit(127);
    }
    return child;
}

struct Result {
    int exit_code = -1;  // or minus the signal that ended it
    std::string out, err;
};

inline Result wait_for(const ScratchFolder& folder, pid_t child, const std::string& name = "") {
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    return {.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status),
            .out = read_file(folder.file("out" + name)),
            .err = read_file(folder.file("err" + name))};
}

inline Result run(const ScratchFolder& folder, const Arguments& arguments) {
    return wait_for(folder, start(folder, arguments));
}

}  // namespace spion::test
