#include "tools/command_line.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>
#include <vector>

#include "ir/error.h"
#include "ir/text_reader.h"
#include "runtime/threads.h"

namespace spion {
namespace {

// The innermost subcommand that was named on the command line.
const CLI::App& innermost(const CLI::App& app) {
    const CLI::App* current = &app;
    while (!current->get_subcommands().empty()) {
        current = current->get_subcommands().front();
    }
    return *current;
}

// "spion bench attention"
std::string full_name(const CLI::App& app) {
    const CLI::App* parent = app.get_parent();
    return parent == nullptr ? app.get_name() : full_name(*parent) + " " + app.get_name();
}

std::vector<std::string> option_names(const CLI::App& app) {
    std::vector<std::string> names;
    for (const CLI::Option* option : app.get_options()) {
        names.push_back(option->get_name());
    }
    return names;
}

std::vector<std::string> subcommand_names(const CLI::App& app) {
    std::vector<std::string> names;
    for (const CLI::App* subcommand : app.get_subcommands([](const CLI::App*) { return true; })) {
        names.push_back(subcommand->get_name());
    }
    return names;
}

// Null when the message names no option of `app`. CLI11 puts the name into its text only; the
// longest match wins, so that --pattern-seed is not taken for --pattern.
const CLI::Option* named_option(std::string_view message, const CLI::App& app) {
    const CLI::Option* best = nullptr;
    for (const CLI::Option* option : app.get_options()) {
        const bool longer = best == nullptr || option->get_name().size() > best->get_name().size();
        if (longer && message.find(option->get_name()) != std::string_view::npos) {
            best = option;
        }
    }
    return best;
}

// "it" is the sentence so far; adds what the option is for, since that says what is allowed.
std::string with_meaning(std::string it, const CLI::Option* option) {
    if (option != nullptr && !option->get_description().empty()) {
        it += fmt::format(" ({}: {})", option->get_name(), option->get_description());
    }
    return it;
}

std::string describe_missing_subcommand(const CLI::App& app) {
    const std::vector<std::string> given = app.remaining();
    const std::string allowed = fmt::format("{}", fmt::join(subcommand_names(app), ", "));
    if (given.empty()) {
        return fmt::format("`{}` needs a subcommand: one of {}", full_name(app), allowed);
    }
    return fmt::format("`{}` has no subcommand or option {}; give one of {}", full_name(app),
                       given.front(), allowed);
}

std::string describe_extras(const CLI::App& root, const CLI::App& app) {
    const std::vector<std::string> given = root.remaining(true);
    if (!subcommand_names(app).empty()) {
        return fmt::format("`{}` has no subcommand or option {}; allowed are {} and {}",
                           full_name(app), fmt::join(given, " "),
                           fmt::join(subcommand_names(app), ", "),
                           fmt::join(option_names(app), ", "));
    }
    return fmt::format("`{}` takes no argument {}; allowed are {}", full_name(app),
                       fmt::join(given, " "), fmt::join(option_names(app), ", "));
}

}  // namespace

std::string describe(const CLI::ParseError& error, const CLI::App& app) {
    const CLI::App& command = innermost(app);
    const std::string message = error.what();
    const auto kind = static_cast<CLI::ExitCodes>(error.get_exit_code());
    if (kind == CLI::ExitCodes::ExtrasError) {
        return describe_extras(app, command);
    }
    if (kind == CLI::ExitCodes::RequiredError && message.find("ubcommand") != std::string::npos) {
        return describe_missing_subcommand(command);
    }
    constexpr std::string_view kExcludes = " excludes ";
    if (const std::size_t at = message.find(kExcludes);
        kind == CLI::ExitCodes::ExcludesError && at != std::string::npos) {
        return fmt::format("`{}`: {} and {} cannot be given together: leave one out",
                           full_name(command), message.substr(0, at),
                           message.substr(at + kExcludes.size()));
    }
    const CLI::Option* option = named_option(message, command);
    if (kind == CLI::ExitCodes::ConversionError && option != nullptr) {
        return with_meaning(fmt::format("`{}`: {} was given {}, which is not of type {}",
                                        full_name(command), option->get_name(),
                                        fmt::join(option->results(), " "), option->get_type_name()),
                            option);
    }
    return with_meaning(fmt::format("`{}`: {}", full_name(command), message), option);
}

void add_threads_option(CLI::App& command) {
    command
        .add_option_function<std::string>(
            "--threads", [](const std::string& number) { set_thread_count(number, "--threads"); },
            "threads on the host, 1 to 4096; without it SPION_THREADS, else the processors that "
            "affinity and CPU quota allow")
        ->type_name("");
}

CLI::Option* add_seed_option(CLI::App& command, const std::string& name, std::uint64_t& seed,
                             const std::string& description) {
    const auto parse = [name, &seed](const std::string& text) {
        const char* const end = text.data() + text.size();
        const auto [stop, error] = std::from_chars(text.data(), end, seed);
        if (error != std::errc() || stop != end) {
            throw UserError("{} was given {}; a seed is a whole number from 0 to {}", name, text,
                            std::numeric_limits<std::uint64_t>::max());
        }
    };
    return command.add_option_function<std::string>(name, parse, description)
        ->type_name("UINT")
        ->default_str(std::to_string(seed));
}

std::string read_text_file(const std::string& path, std::string_view what,
                           std::string_view wanted) {
    std::error_code ignored;
    if (std::filesystem::is_directory(path, ignored)) {
        throw UserError("{} {} is a folder; give {}", what, path, wanted);
    }
    errno = 0;
    std::ifstream file(path, std::ios::binary);
    std::string bytes;
    char piece[1 << 16];
    while (bytes.size() <= kLargestText && (file.read(piece, sizeof piece), file.gcount() > 0)) {
        bytes.append(piece, static_cast<std::size_t>(file.gcount()));
    }
    if (!file.is_open() || file.bad()) {
        throw UserError("{} {} cannot be read ({}); give {}", what, path, std::strerror(errno),
                        wanted);
    }
    if (bytes.size() > kLargestText) {
        throw UserError("{} {} has more than {} MiB, the most that is read; give {}", what, path,
                        kLargestText >> 20, wanted);
    }
    const std::string_view content = without_byte_order_mark(bytes);
    if (content.empty()) {
        throw UserError("{} {} is empty; give {}", what, path, wanted);
    }
    return std::string(content);
}

}  // namespace spion
