// `spion sweep`: many trainings, and what they come to in one table and on one page.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "ir/error.h"
#include "runtime/atomic_file.h"
#include "runtime/device.h"
#include "runtime/environment.h"
#include "runtime/output.h"
#include "runtime/whole_file.h"
#include "tools/commands.h"
#include "tools/exit_codes.h"
#include "tools/sweep/execute.h"
#include "tools/sweep/page.h"
#include "tools/sweep/plan.h"
#include "tools/sweep/results.h"

namespace spion {
namespace {

namespace fs = std::filesystem;
using namespace sweep;

struct SweepOptions {
    std::string file, out;
    int jobs = 0;  // 0: a run a GPU, or one without
    double minutes = 0;
    bool report = false;
};

// A GPU each, as CUDA_VISIBLE_DEVICES names them; one place without any.
std::vector<std::string> places_of(const SweepOptions& options, const Plan& plan) {
    std::vector<std::string> gpus;
    const bool on_host = std::all_of(plan.runs.begin(), plan.runs.end(), [](const Run& run) {
        return run.settings.device == DeviceChoice::kCpu;
    });
    const int count = on_host ? 0 : visible_gpus();
    std::istringstream visible(environment_value("CUDA_VISIBLE_DEVICES").value_or(""));
    for (int gpu = 0; gpu < count; ++gpu) {
        std::string name;
        if (!std::getline(visible, name, ',')) name = std::to_string(gpu);
        gpus.push_back(name);
    }
    if (gpus.empty()) gpus.emplace_back();
    std::vector<std::string> places;
    const std::size_t jobs =
        options.jobs > 0 ? static_cast<std::size_t>(options.jobs) : gpus.size();
    for (std::size_t i = 0; i < jobs; ++i) places.push_back(gpus[i % gpus.size()]);
    return places;
}

// A folder goes on with the file that it was begun with.
void begin(const SweepOptions& options, const Plan& plan) {
    const fs::path folder = options.out;
    const auto before = read_whole_file(folder / "sweep.toml", kLargestKeptText);
    if (before && *before != plan.text) {
        throw UserError(
            "{} was begun with another file than {}: name another --out, or give {} to go on",
            options.out, options.file, (folder / "sweep.toml").string());
    }
    std::error_code error;
    if (!before && fs::exists(folder, error) && !fs::is_empty(folder, error)) {
        throw UserError("--out {} is not empty and has no sweep; name a new folder", options.out);
    }
    const NamedBytes file{.path = folder / "sweep.toml", .bytes = plan.text};
    write_files({&file, 1}, "name another --out folder");
    fs::create_directories(folder / "runs", error);
}

void write_report(const SweepOptions& options, const Plan& plan,
                  const std::vector<RunResult>& results) {
    const fs::path folder = options.out;
    const std::vector<Row> rows = rows_of(plan, results);
    const std::string runs = runs_csv(plan, results), csv = table_csv(rows),
                      markdown = table_markdown(rows),
                      page = to_html(fs::path(options.file).stem().string(), plan, results, rows);
    const NamedBytes files[] = {{.path = folder / "runs.csv", .bytes = runs},
                                {.path = folder / "table.csv", .bytes = csv},
                                {.path = folder / "table.md", .bytes = markdown},
                                {.path = folder / "page.html", .bytes = page}};
    write_files(files, "free some space");
    print_out("{}\n{}\n", markdown, (folder / "page.html").string());
}

int run_sweep(const SweepOptions& options) {
    const Plan plan = read_plan(options.file);
    begin(options, plan);
    Limits limits{.places = {}, .minutes = options.minutes};
    if (!options.report) limits.places = places_of(options, plan);
    const Outcome outcome =
        execute(plan, options.out, limits, [](std::string_view text) { say("spion: {}\n", text); });
    write_report(options, plan, outcome.results);
    constexpr int kBySignal = 128;
    if (outcome.signal != 0) return kBySignal + outcome.signal;
    const bool failed =
        std::any_of(outcome.results.begin(), outcome.results.end(),
                    [](const RunResult& result) { return result.state.starts_with("failed"); });
    return failed ? kNotPassed : kDone;
}

}  // namespace

void add_sweep(CLI::App& app, int* exit_code) {
    CLI::App* command = app.add_subcommand(
        "sweep", "Train with several seeds, patterns, tasks and rates; one table, one page");
    const auto options = std::make_shared<SweepOptions>();
    command->add_option("file", options->file, "TOML file of the sweep (docs/guide/sweeps.md)")
        ->required();
    command
        ->add_option("--out", options->out,
                     "folder of its runs and results; one that was begun goes on")
        ->required();
    command
        ->add_option("--jobs", options->jobs, "runs at a time; 0: one a GPU, or one without GPUs")
        ->check(CLI::Range(0, 1024));
    command
        ->add_option("--minutes", options->minutes,
                     "stop after so many, with checkpoints; 0: when all are done")
        ->check(CLI::Range(0.0, 1e6));
    command->add_flag("--report", options->report, "run nothing, write table and page anew");
    command->callback([options, exit_code] { *exit_code = run_sweep(*options); });
}

}  // namespace spion
