#include "tools/sweep/plan.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <optional>

#include "compiler/discovery/fixed_patterns.h"
#include "ir/error.h"
#include "tools/command_line.h"
#include "train/settings_file.h"
#include "train/task.h"

namespace spion::sweep {
namespace {

using Flags = std::vector<std::pair<std::string, std::string>>;

constexpr const char* kVariants[] = {"cf", "c", "f"};

// What every run has of itself, so that a table may not set it.
constexpr std::string_view kOfTheSweep[] = {"task", "seed", "minutes"};

bool is_variant(const std::string& arm) {
    return std::find(std::begin(kVariants), std::end(kVariants), arm) != std::end(kVariants);
}

void set(Flags& flags, const std::string& name, const std::string& value) {
    const auto found = std::find_if(flags.begin(), flags.end(),
                                    [&](const auto& one) { return one.first == name; });
    if (found == flags.end()) {
        flags.emplace_back(name, value);
    } else {
        found->second = value;
    }
}

bool has(const Flags& flags, std::string_view name) {
    return std::any_of(flags.begin(), flags.end(),
                       [&](const auto& one) { return one.first == name; });
}

// The file's tables, looked at.
class Reader {
  public:
    explicit Reader(const std::filesystem::path& file)
        : origin_(file.string()), top_(read_settings_tables(file)) {
        for (const FileSetting& setting : top_.settings) {
            throw UserError(
                "{} stands outside of a table: settings of all runs are in [settings], and {} are "
                "lists",
                setting.given, fmt::join(kLists, ", "));
        }
        for (const auto& [name, list] : top_.lists) {
            require_one_of(name, list.given, kLists);
        }
        for (const auto& [name, table] : top_.tables) {
            require_one_of(name, table.given, kTables);
        }
        if (const auto* settings = table("settings")) require_flat(*settings);
        for (const char* group : {"task", "arm"}) {
            if (const auto* tables = table(group)) require_tables(*tables);
        }
    }

    std::vector<std::string> list(const std::string& name,
                                  std::vector<std::string> otherwise) const {
        const auto found = top_.lists.find(name);
        if (found == top_.lists.end()) return otherwise;
        std::vector<std::string> sorted = found->second.values;
        std::sort(sorted.begin(), sorted.end());
        if (sorted.empty() || std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) {
            throw UserError("{} is empty or names something twice: give each value once",
                            found->second.given);
        }
        return found->second.values;
    }

    bool has_table_of(const std::string& group, const std::string& name) const {
        const auto* tables = table(group);
        return tables != nullptr && tables->content.tables.count(name) != 0;
    }

    // [settings], [task.TASK] and [arm.ARM] one after the other.
    std::vector<FileSetting> settings_of(const std::string& group, const std::string& name) const {
        const auto* found = table(group);
        if (found != nullptr && !name.empty()) {
            const auto inner = found->content.tables.find(name);
            found = inner == found->content.tables.end() ? nullptr : &inner->second;
        }
        return found == nullptr ? std::vector<FileSetting>{} : found->content.settings;
    }

    // Tables of tasks and arms that no run has are most likely misspelt.
    void require_used(const std::string& group, const std::vector<std::string>& names) const {
        if (const auto* tables = table(group)) {
            for (const auto& [name, inner] : tables->content.tables) {
                if (std::find(names.begin(), names.end(), name) == names.end()) {
                    throw UserError("{} is a table of {}s, but no run has this one: it has {}",
                                    inner.given, group, fmt::join(names, ", "));
                }
            }
        }
    }

  private:
    static constexpr const char* kLists[] = {"tasks", "arms", "lr", "seeds"};
    static constexpr const char* kTables[] = {"settings", "task", "arm"};

    template <std::size_t N>
    static void require_one_of(const std::string& name, const std::string& given,
                               const char* const (&allowed)[N]) {
        if (std::find(std::begin(allowed), std::end(allowed), name) == std::end(allowed)) {
            throw UserError("{} is not known: a sweep has the lists {} and the tables {}", given,
                            fmt::join(kLists, ", "), fmt::join(kTables, ", "));
        }
    }
    const SettingsTable::Table* table(const std::string& name) const {
        const auto found = top_.tables.find(name);
        return found == top_.tables.end() ? nullptr : &found->second;
    }
    static void require_flat(const SettingsTable::Table& table) {
        for (const auto& [name, list] : table.content.lists) {
            throw UserError("{} is a list: settings have one value", list.given);
        }
        for (const auto& [name, inner] : table.content.tables) {
            throw UserError("{} is a table, but a setting has a value", inner.given);
        }
        for (const FileSetting& setting : table.content.settings) {
            if (std::find(std::begin(kOfTheSweep), std::end(kOfTheSweep), setting.name) !=
                std::end(kOfTheSweep)) {
                throw UserError(
                    "{} is of the sweep itself: `tasks` and `seeds` are lists, and --minutes an "
                    "option",
                    setting.given);
            }
        }
    }
    static void require_tables(const SettingsTable::Table& table) {
        for (const FileSetting& setting : table.content.settings) {
            throw UserError("{} is of no task or arm: write it into a table such as [task.listops]",
                            setting.given);
        }
        for (const auto& [name, inner] : table.content.tables) require_flat(inner);
    }

    std::string origin_;
    SettingsTable top_;
};

// What an arm is by its name.
Flags flags_of_arm(const std::string& arm, const Reader& reader) {
    if (arm == "dense") return {{"dense", "true"}};
    if (is_variant(arm)) return {{"variant", arm}};
    if (parse_fixed_pattern(arm)) return {{"pattern", arm}, {"sparse-from", "start"}};
    if (reader.has_table_of("arm", arm)) return {};
    throw UserError("the arm '{}' is none of {}: give its settings in a table [arm.{}]", arm,
                    fmt::join(known_arms(), ", "), arm);
}

TrainSettings settings_of(const Run& run, const std::map<std::string, std::string>& given_by_name) {
    TrainSettings settings = preset_settings("paper", run.task);
    for (const auto& [name, value] : run.flags) {
        const auto given = given_by_name.find(name);
        apply_setting(settings, name, value, given == given_by_name.end() ? name : given->second);
    }
    check(settings);
    return settings;
}

Run make_run(const Reader& reader, const std::string& task, const std::string& arm,
             const std::string& rate, const std::string& seed) {
    Run run{
        .task = task,
        .arm = arm,
        .rate = rate,
        .seed = seed,
        .name = fmt::format("{}-{}{}-seed{}", task, arm, rate.empty() ? "" : "-lr" + rate, seed),
        .flags = {},
        .density_of = {},
        .settings = {}};
    std::map<std::string, std::string> given;
    const auto add = [&](const std::vector<FileSetting>& settings) {
        for (const FileSetting& setting : settings) {
            set(run.flags, setting.name, setting.value);
            given[setting.name] = setting.given;
        }
    };
    add(reader.settings_of("settings", ""));
    add(reader.settings_of("task", task));
    const bool density_is_given = has(run.flags, "density");
    for (const auto& [name, value] : flags_of_arm(arm, reader)) set(run.flags, name, value);
    add(reader.settings_of("arm", arm));
    if (!rate.empty()) set(run.flags, "lr", rate);
    set(run.flags, "seed", seed);
    run.settings = settings_of(run, given);
    const bool own = density_is_given || given.count("density") != 0;
    if (!own && parse_fixed_pattern(run.settings.pattern)) run.density_of = "cf";
    return run;
}

bool is_name(const std::string& text) {
    return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) {
        return std::isalnum(c) != 0 || c == '_' || c == '-' || c == '.' || c == '+';
    });
}

}  // namespace

std::vector<std::string> known_arms() {
    std::vector<std::string> arms{"dense"};
    arms.insert(arms.end(), std::begin(kVariants), std::end(kVariants));
    arms.insert(arms.end(), kFixedPatternNames.begin(), kFixedPatternNames.end());
    return arms;
}

Plan read_plan(const std::filesystem::path& file) {
    const Reader reader(file);
    Plan plan{.runs = {}, .text = read_text_file(file.string(), "the sweep", "a TOML file")};
    const auto tasks = reader.list("tasks", {"listops"}),
               arms = reader.list("arms", {"dense", "cf"}), rates = reader.list("lr", {""}),
               seeds = reader.list("seeds", {"0"});
    reader.require_used("task", tasks);
    reader.require_used("arm", arms);
    for (const std::string& name : arms) {
        if (!is_name(name)) {
            throw UserError("the arm '{}' is no name of a folder: use letters, digits, _ and -",
                            name);
        }
    }
    // Seeds outermost, so that every arm has a first result early.
    for (const std::string& seed : seeds) {
        for (const std::string& task : tasks) {
            task_named(task);
            for (const std::string& arm : arms) {
                for (const std::string& rate : rates) {
                    plan.runs.push_back(make_run(reader, task, arm, rate, seed));
                }
            }
        }
    }
    const bool has_cf = std::find(arms.begin(), arms.end(), "cf") != arms.end();
    for (Run& run : plan.runs) {
        if (!has_cf) run.density_of.clear();  // then it has the setting's
    }
    std::stable_partition(plan.runs.begin(), plan.runs.end(),
                          [](const Run& run) { return run.density_of.empty(); });
    return plan;
}

}  // namespace spion::sweep
