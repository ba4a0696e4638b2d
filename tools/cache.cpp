// `spion cache`: what is kept of compiled kernels and of autotuning, whether it is whole, and away
// with it.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "compiler/tune/tuning.h"
#include "ir/error.h"
#include "runtime/cache.h"
#include "runtime/cache_folders.h"
#include "runtime/cache_listing.h"
#include "runtime/cache_prune.h"
#include "runtime/output.h"
#include "tools/commands.h"
#include "tools/exit_codes.h"

namespace spion {
namespace {

namespace fs = std::filesystem;

struct CacheOptions {
    std::string folder;  // "": the one that every command uses
    bool json = false;
    std::string unused_for;  // "30d"; "": whatever its age
    std::string max_size;    // "2G"; "": whatever its size
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
            "there is no cache: none of SPION_CACHE_DIR, XDG_CACHE_HOME and HOME names a folder to "
            "keep it in; set one or name a folder with --dir");
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

// What the cache folder holds.
struct Kept {
    fs::path root;
    std::vector<CacheEntry> kernels;
    std::vector<TuningEntry> tunings;
};

Kept read_cache(const CacheOptions& options) {
    const fs::path root = root_of(options);
    return {.root = root, .kernels = list_entries(root), .tunings = list_tunings(root)};
}

// "2 kernels and 1 tuning".
std::string counted(std::size_t kernels, std::size_t tunings) {
    return fmt::format("{} kernel{} and {} tuning{}", kernels, kernels == 1 ? "" : "s", tunings,
                       tunings == 1 ? "" : "s");
}

void print_json(const Kept& kept) {
    nlohmann::ordered_json rows = nlohmann::ordered_json::array();
    for (const CacheEntry& entry : kept.kernels) {
        rows.push_back({{"kind", "kernel"},
                        {"name", entry.name},
                        {"key", entry.key},
                        {"target", entry.arch},
                        {"compiler", entry.compiler},
                        {"bytes", entry.bytes},
                        {"age_seconds", entry.age_seconds},
                        {"unused_seconds", entry.unused_seconds},
                        {"compile_ms", entry.compile_ms},
                        {"folder", entry.folder.string()},
                        {"problem", entry.problem}});
    }
    for (const TuningEntry& entry : kept.tunings) {
        const TileShape& shape = entry.tuning.shape;
        rows.push_back({{"kind", "tuning"},
                        {"name", entry.tuning.kernel},
                        {"key", entry.key},
                        {"device", entry.tuning.device},
                        {"batch", entry.tuning.batch},
                        {"stationary_rows", shape.stationary_rows},
                        {"streamed_rows", shape.streamed_rows},
                        {"gather_rows", shape.gather_rows},
                        {"warps", shape.warps},
                        {"stages", shape.stages},
                        {"milliseconds", entry.tuning.milliseconds},
                        {"bytes", entry.bytes},
                        {"age_seconds", entry.age_seconds},
                        {"file", entry.file.string()},
                        {"problem", entry.problem}});
    }
    print_out("{}\n", rows.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

std::string damage_text(const std::string& problem) {
    return problem.empty() ? "" : "  damaged: " + problem;
}

std::string kernel_table(const std::vector<CacheEntry>& entries, std::size_t width) {
    std::string text = fmt::format("{:<{}}  {:<14} {:>9} {:>8} {:>9}\n", "kernel", width, "target",
                                   "size", "age", "compile");
    for (const CacheEntry& entry : entries) {
        text += fmt::format("{:<{}}  {:<14} {:>5} KiB {:>8} {:>6.0f} ms{}\n", entry.name, width,
                            entry.arch, (entry.bytes + 1023) / 1024, age_text(entry.age_seconds),
                            entry.compile_ms, damage_text(entry.problem));
    }
    return text;
}

// The tile: stationary rows, streamed rows of a step, steps in flight (`--explain` says the same).
std::string tuning_table(const std::vector<TuningEntry>& entries, std::size_t width) {
    std::string text = fmt::format("{:<{}}  {:<14} {:>9} {:>8} {:>9}  {}\n", "tuning", width,
                                   "tile", "batch", "age", "median", "device");
    for (const TuningEntry& entry : entries) {
        const Tuning& found = entry.tuning;
        const std::string tile = fmt::format("{}/{} x{}", found.shape.stationary_rows,
                                             found.shape.streamed_rows, found.shape.stages);
        text += fmt::format("{:<{}}  {:<14} {:>9} {:>8} {:>6.3f} ms  {}{}\n", found.kernel, width,
                            tile, found.batch, age_text(entry.age_seconds), found.milliseconds,
                            found.device, damage_text(entry.problem));
    }
    return text;
}

void print_table(const Kept& kept) {
    if (kept.kernels.empty() && kept.tunings.empty()) {
        print_out("nothing is kept in {}\n", kept.root.string());
        return;
    }
    std::size_t width = 6;
    std::uintmax_t bytes = 0;
    for (const CacheEntry& entry : kept.kernels) {
        width = std::max(width, entry.name.size());
        bytes += entry.bytes;
    }
    for (const TuningEntry& entry : kept.tunings) {
        width = std::max(width, entry.tuning.kernel.size());
        bytes += entry.bytes;
    }
    print_out("{}{}{}, {} KiB in {}\n",
              kept.kernels.empty() ? "" : kernel_table(kept.kernels, width),
              kept.tunings.empty() ? "" : tuning_table(kept.tunings, width),
              counted(kept.kernels.size(), kept.tunings.size()), (bytes + 1023) / 1024,
              kept.root.string());
}

void run_list(const CacheOptions& options) {
    const Kept kept = read_cache(options);
    options.json ? print_json(kept) : print_table(kept);
}

void run_verify(const CacheOptions& options, int* exit_code) {
    const Kept kept = read_cache(options);
    std::string report;
    std::size_t damaged = 0;
    const auto note = [&](const fs::path& path, const std::string& problem) {
        if (!problem.empty()) {
            report += fmt::format("{}: {}\n", path.string(), problem);
            ++damaged;
        }
    };
    for (const CacheEntry& entry : kept.kernels) {
        note(entry.folder, verify_entry(entry));
    }
    for (const TuningEntry& entry : kept.tunings) {
        note(entry.file, entry.problem);
    }
    print_out("{}{} in {}, {} damaged{}\n", report,
              counted(kept.kernels.size(), kept.tunings.size()), kept.root.string(), damaged,
              damaged == 0 ? "" : ": these are made again when they are needed");
    *exit_code = damaged == 0 ? kDone : kNotPassed;
}

void run_clear(const CacheOptions& options) {
    const fs::path root = root_of(options);
    const std::size_t kernels = clear_entries(root);
    const std::size_t tunings = clear_tunings(root);
    print_out("removed {} from {}\n", counted(kernels, tunings), root.string());
}

// "30d": a number and s, m, h, d or w, in seconds.
double parse_age(const std::string& text) {
    double number = 0;
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, number);
    const std::string_view unit(stop, static_cast<std::size_t>(end - stop));
    constexpr double kMinute = 60, kHour = 60 * kMinute, kDay = 24 * kHour, kWeek = 7 * kDay;
    constexpr std::pair<std::string_view, double> kUnits[] = {
        {"s", 1}, {"m", kMinute}, {"h", kHour}, {"d", kDay}, {"w", kWeek}};
    for (const auto& [name, seconds] : kUnits) {
        if (error == std::errc{} && unit == name && number >= 0) {
            return number * seconds;
        }
    }
    throw UserError(
        "--unused-for is {}: give a number with s, m, h, d or w, such as 30d for thirty days",
        text);
}

void run_prune(const CacheOptions& options) {
    if (options.unused_for.empty() && options.max_size.empty()) {
        throw UserError(
            "nothing says what to remove: give --unused-for 30d, --max-size 2G or both, or use "
            "`spion cache clear`");
    }
    PruneRules rules;
    if (!options.unused_for.empty()) {
        rules.unused_seconds = parse_age(options.unused_for);
    }
    if (!options.max_size.empty()) {
        rules.bytes = parse_size(options.max_size, "--max-size");
    }
    const fs::path root = root_of(options);
    const Pruned pruned = prune_entries(root, rules);
    const auto text = [](std::size_t kernels, std::uintmax_t bytes) {
        return fmt::format("{} kernel{} of {} KiB", kernels, kernels == 1 ? "" : "s",
                           (bytes + 1023) / 1024);
    };
    print_out("removed {} from {}, {} left\n", text(pruned.kernels, pruned.bytes), root.string(),
              text(pruned.kernels_left, pruned.bytes_left));
}

}  // namespace

void add_cache(CLI::App& app, int* exit_code) {
    const auto options = std::make_shared<CacheOptions>();
    CLI::App* command =
        app.add_subcommand("cache", "list, check or remove the kernels and tunings that are kept");
    command->require_subcommand(1);
    CLI::App* list = command->add_subcommand("list", "a line a kernel, a line a tuning");
    list->add_flag("--json", options->json, "print an array of objects instead of a table");
    CLI::App* verify = command->add_subcommand(
        "verify", "compute every digest again; exit code 1 when an entry is damaged");
    CLI::App* clear =
        command->add_subcommand("clear", "remove kernels and tunings, and nothing else");
    CLI::App* prune = command->add_subcommand(
        "prune", "remove kernels by last use and size; tunings, which are small, stay");
    prune->add_option("--unused-for", options->unused_for,
                      "those not used for longer: a number with s, m, h, d or w, such as 30d");
    prune->add_option("--max-size", options->max_size,
                      "then those unused for longest, until no more is left: bytes, or such as 2G");
    for (CLI::App* subcommand : {list, verify, clear, prune}) {
        subcommand->add_option("--dir", options->folder,
                               "cache folder; without it, the one that every command uses");
    }
    list->callback([options] { run_list(*options); });
    verify->callback([options, exit_code] { run_verify(*options, exit_code); });
    prune->callback([options] { run_prune(*options); });
    clear->callback([options] { run_clear(*options); });
}

}  // namespace spion
