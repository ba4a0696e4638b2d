// What the command says when its arguments make no sense.
#pragma once

#include <CLI/CLI.hpp>

#include <string>

namespace spion {

// One sentence that names what was given and what is allowed, without a trailing newline. `app` is
// the root command whose parse() threw `error`.
std::string describe(const CLI::ParseError& error, const CLI::App& app);

// Adds --threads to a command that computes, compiles or makes data on the host
// (runtime/threads.h).
void add_threads_option(CLI::App& command);

}  // namespace spion
