// `spion cache`: what is kept of compiled kernels, whether it is whole, and away with it.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "ir/error.h"
#include "runtime/cache.h"
#include "runtime/cache_listing.h"
#include "tools/commands.h"

namespace spion {
namespace {

namespace fs = std::filesystem;

constexpr int kDamaged = 1;

struct CacheOptions {
    std::string folder;  // "": the one that every command uses
    bool json = false;
};

fs::path root_of(const CacheOptions& options) {
    if (!options.folder.empty()) {
        std::error_code ignored;
        if (!fs::is_directory(options.folder, ignored)) {
            throw UserError("--dir {} is no folder; name one, or leave --dir out for the usual one",
                            options.folder);
        }
        return options.folder;
    }
    const auto root = KernelCache::default_root();
    if (!root) {
        throw UserError(
            "there is no cache: none of SPION_CACHE_DIR, XDG_CACHE_HOME and HOME is set; set one "
            "or name a folder with --dir");
    }
    return *root;
}

std::string age_text(double seconds) {
    constexpr double kMinute = 60, kHour = 60 * kMinute, kDay = 24 * kHour;
    if (seconds >= 2 * kDay) {
        return fmt::format("{:.0f} days", seconds / kDay);
    }
    if (seconds >= 2 * kHour) {
        return fmt::format("{:.0f} h", seconds / kHour);
    }
    return seconds >= 2 * kMinute ? fmt::format("{:.0f} min", seconds / kMinute)
                                  : fmt::format("{:.0f} s", std::max(0.0, seconds));
}

void print_json(const std::vector<CacheEntry>& entries) {
    nlohmann::ordered_json rows = nlohmann::ordered_json::array();
    for (const CacheEntry& entry : entries) {
        rows.push_back({{"name", entry.name},
                        {"key", entry.key},
                        {"target", entry.arch},
                        {"compiler", entry.compiler},
                        {"bytes", entry.bytes},
                        {"age_seconds", entry.age_seconds},
                        {"compile_ms", entry.compile_ms},
                        {"folder", entry.folder.string()},
                        {"problem", entry.problem}});
    }
    fmt::print("{}\n", rows.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

void print_table(const std::vector<CacheEntry>& entries, const fs::path& root) {
    if (entries.empty()) {
        fmt::print("no kernels are kept in {}\n", root.string());
        return;
    }
    std::size_t width = 4;
    std::uintmax_t bytes = 0;
    for (const CacheEntry& entry : entries) {
        width = std::max(width, entry.name.size());
        bytes += entry.bytes;
    }
    fmt::print("{:<{}}  {:<14} {:>9} {:>8} {:>9}\n", "name", width, "target", "size", "age",
               "compile");
    for (const CacheEntry& entry : entries) {
        fmt::print("{:<{}}  {:<14} {:>5} KiB {:>8} {:>6.0f} ms{}\n", entry.name, width, entry.arch,
                   (entry.bytes + 1023) / 1024, age_text(entry.age_seconds), entry.compile_ms,
                   entry.problem.empty() ? "" : "  damaged: " + entry.problem);
    }
    fmt::print("{} kernels, {} KiB in {}\n", entries.size(), (bytes + 1023) / 1024, root.string());
}

void run_list(const CacheOptions& options) {
    const fs::path root = root_of(options);
    const std::vector<CacheEntry> entries = list_entries(root);
    options.json ? print_json(entries) : print_table(entries, root);
}

void run_verify(const CacheOptions& options, int* exit_code) {
    const fs::path root = root_of(options);
    const std::vector<CacheEntry> entries = list_entries(root);
    std::string report;
    std::size_t damaged = 0;
    for (const CacheEntry& entry : entries) {
        if (const std::string problem = verify_entry(entry); !problem.empty()) {
            report += fmt::format("{}: {}\n", entry.folder.string(), problem);
            ++damaged;
        }
    }
    fmt::print("{}{} kernels in {}, {} damaged{}\n", report, entries.size(), root.string(), damaged,
               damaged == 0 ? "" : ": these are compiled again when they are needed");
    *exit_code = damaged == 0 ? 0 : kDamaged;
}

void run_clear(const CacheOptions& options) {
    const fs::path root = root_of(options);
    const std::size_t removed = clear_entries(root);
    fmt::print("removed {} kernel{} from {}\n", removed, removed == 1 ? "" : "s", root.string());
}

}  // namespace

void add_cache(CLI::App& app, int* exit_code) {
    const auto options = std::make_shared<CacheOptions>();
    CLI::App* command =
        app.add_subcommand("cache", "list, check or remove the compiled kernels that are kept");
    command->require_subcommand(1);
    CLI::App* list = command->add_subcommand("list", "a line a kernel");
    list->add_flag("--json", options->json, "print an array of objects instead of a table");
    CLI::App* verify = command->add_subcommand(
        "verify", "compute every digest again; exit code 1 when an entry is damaged");
    CLI::App* clear = command->add_subcommand("clear", "remove the kernels, and nothing else");
    for (CLI::App* subcommand : {list, verify, clear}) {
        subcommand->add_option("--dir", options->folder,
                               "cache folder; without it, the one that every command uses");
    }
    list->callback([options] { run_list(*options); });
    verify->callback([options, exit_code] { run_verify(*options, exit_code); });
    clear->callback([options] { run_clear(*options); });
}

}  // namespace spion
