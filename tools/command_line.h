// What the command says when its arguments make no sense.
#pragma once

#include <CLI/CLI.hpp>

#include <cstdint>
#include <string>
#include <string_view>

namespace spion {

// One sentence that names what was given and what is allowed, without a trailing newline. `app` is
// the root command whose parse() threw `error`.
std::string describe(const CLI::ParseError& error, const CLI::App& app);

// Adds --threads to a command that computes, compiles or makes data on the host
// (runtime/threads.h).
void add_threads_option(CLI::App& command);

// An option whose value is a whole number of 0 to 2^64 - 1; its default is what `seed` holds.
// (CLI11 alone takes -1 for 2^64 - 1.) `seed` must outlive the parse.
CLI::Option* add_seed_option(CLI::App& command, const std::string& name, std::uint64_t& seed,
                             const std::string& description);

// Most bytes of a text file (IR, lists of lengths) that is read: a larger one is a mistake.
constexpr std::size_t kLargestText = std::size_t{256} << 20;
// The whole of a text file, without a byte-order mark. Throws UserError for one that is empty, a folder or cannot be read:
// "`what` `path` is empty; give `wanted`".
std::string read_text_file(const std::string& path, std::string_view what, std::string_view wanted);

}  // namespace spion
