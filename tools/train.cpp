// `spion train TASK`: the main job, from random weights to a sparse model and its kernels.
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "ir/error.h"
#include "runtime/output.h"
#include "runtime/ranks/open.h"
#include "tools/command_line.h"
#include "tools/commands.h"
#include "tools/exit_codes.h"
#include "train/checkpoint.h"
#include "train/interrupt.h"
#include "train/phases.h"
#include "train/report.h"
#include "train/run_folder.h"
#include "train/settings.h"
#include "train/settings_file.h"
#include "train/task.h"

namespace spion {
namespace {

struct TrainOptions {
    const Task* task = nullptr;
    std::string preset = "paper";
    std::string config;  // path of a TOML file; empty for none
    std::string out;
    std::string resume;  // the folder of a run to go on with; empty to begin one
    std::map<std::string, std::string, std::less<>> given;  // flag name -> value as written
};

// The preset, changed by the config file, changed by the flags.
TrainSettings resolve(const TrainOptions& options) {
    TrainSettings settings = preset_settings(options.preset, options.task->name);
    if (!options.config.empty()) apply_settings_file(settings, options.config);
    for (const auto& [name, value] : options.given) {
        apply_setting(settings, name, value, "--" + name);
    }
    check(settings);
    return settings;
}

// At the end, on the stream that may still be read.
void tell_lost_messages() {
    const LostMessages lost = lost_messages();
    if (lost.count > 0) {
        print_out(
            "{} messages could not be written to standard error ({}): the log is not whole, the "
            "folder of the run is\n",
            lost.count, lost.reason);
    }
}

// What may differ from the run that is gone on with: nothing that a loss depends on.
constexpr std::array<std::string_view, 8> kMayChange = {"data",
                                                        "device",
                                                        "checkpoint-every",
                                                        "checkpoint-minutes",
                                                        "keep-checkpoints",
                                                        "minutes",
                                                        "on-divergence",
                                                        "graph"};

// The settings of a run as far as it has come, changed by the flags.
TrainSettings settings_to_resume(const TrainOptions& options, const std::optional<Checkpoint>& from,
                                 const Rank& rank) {
    TrainSettings settings = preset_settings("paper", options.task->name);
    if (from) {
        settings = from->settings;
        if (settings.task != options.task->name) {
            throw UserError("{} is a run of {}: use `spion train {} --resume {}`", options.resume,
                            settings.task, settings.task, options.resume);
        }
    } else {
        apply_settings_file(settings, std::filesystem::path(options.resume) / "config.toml");
    }
    for (const auto& [name, value] : options.given) {
        if (std::find(kMayChange.begin(), kMayChange.end(), name) == kMayChange.end()) {
            throw UserError(
                "--{} cannot be changed by --resume, which goes on with the settings of the run; "
                "only {} can",
                name, fmt::join(kMayChange, ", "));
        }
        apply_setting(settings, name, value, "--" + name);
    }
    if (from) divide_among(settings, from->state.processes, rank.count);
    check(settings);
    return settings;
}

int finish_run(const TrainReport& report, const TrainSettings& settings, const KernelCache& cache,
               Device& device, RunFolder& folder) {
    folder.write_summary(report_json(report, settings, cache.counters(), device));
    if (folder.is_written())
        print_out("{}", report_text(report, settings, cache.counters(), folder));
    tell_lost_messages();
    if (report.divergence && report.divergence->ended_training) return kDiverged;
    constexpr int kBySignal = 128;
    return report.interrupted ? kBySignal + report.signal : kDone;
}

// A process of several that does not lead is silent, unless it fails.
std::unique_ptr<Progress> progress_of(const Rank& rank) {
    if (rank.leads()) return std::make_unique<Progress>();
    return std::make_unique<Progress>([](std::string_view) {}, [] { return Terminal{}; });
}

// Each process of a machine has a GPU of its own, unless it sees no other anyway.
std::unique_ptr<Device> open_device(const TrainSettings& settings, const Rank& rank,
                                    Progress& progress) {
    const bool many = settings.device != DeviceChoice::kCpu && visible_gpus() > 1;
    auto device = open_device(settings.device, many ? rank.local : 0);
    progress.say(rank.alone() ? fmt::format("training on {}", device->name())
                              : fmt::format("training with {} processes, the first on {}",
                                            rank.count, device->name()));
    return device;
}

TaskData load(const TrainOptions& options, const TrainSettings& settings, Progress& progress) {
    return options.task->load(settings, [&](std::string_view text) { progress.say(text); });
}

int train_together(Communicator& ranks, const TrainSettings& settings, const TaskData& data,
                   Device& device, RunFolder& folder, Progress& progress, const Checkpoint* from) {
    KernelCache cache(KernelCache::checked_folders());
    const TrainReport report = train(settings, data, device, cache, folder, progress, from, &ranks);
    return finish_run(report, settings, cache, device, folder);
}

// Does the work of this process in a job that has its files in the run's folder. Whatever ends it is
// told to the others.
int in_job(const Rank& rank, const std::filesystem::path& run,
           const std::function<int(Job&)>& work) {
    Job job(rank, run / "ranks");
    try {
        return work(job);
    } catch (const std::exception& error) {
        job.tell_failure(error.what());
        throw;
    }
}

int begin_training(const TrainOptions& options, const Rank& rank, Job& job) {
    const TrainSettings settings = resolve(options);
    const std::unique_ptr<Progress> progress = progress_of(rank);
    const std::unique_ptr<Device> device = open_device(settings, rank, *progress);
    const TaskData data = load(options, settings, *progress);
    RunFolder folder = rank.leads() ? RunFolder(options.out) : RunFolder::of_another(options.out);
    const std::unique_ptr<Communicator> ranks = job.connect(*device);
    // Only now, as until all have come each of them still looks whether the folder is new.
    folder.write_config(to_toml(settings));
    return train_together(*ranks, settings, data, *device, folder, *progress, nullptr);
}

int run_training(const TrainOptions& options) {
    const Rank rank = rank_of_process();
    check_run_folder(options.out);
    return in_job(rank, options.out, [&](Job& job) { return begin_training(options, rank, job); });
}

int go_on_training(const TrainOptions& options, const Rank& rank, RunFolder folder, Job& job) {
    if (!rank.leads()) folder = RunFolder::of_another(options.resume);
    const std::unique_ptr<Progress> progress = progress_of(rank);
    const std::optional<Checkpoint> from =
        CheckpointFolder(folder.path() / "checkpoints").latest([&](std::string_view text) {
            progress->say(text);
        });
    if (!from) progress->say("there is no checkpoint yet: the run begins anew");
    const TrainSettings settings = settings_to_resume(options, from, rank);
    const std::unique_ptr<Device> device = open_device(settings, rank, *progress);
    const TaskData data = load(options, settings, *progress);
    if (from && (data.classes != from->classes || data.class_names != from->class_names)) {
        throw UserError(
            "{} was trained on {} classes, but {} has {} or other names of them: give the same "
            "data",
            options.resume, from->classes, settings.data, data.classes);
    }
    const std::unique_ptr<Communicator> ranks = job.connect(*device);
    return train_together(*ranks, settings, data, *device, folder, *progress,
                          from ? &*from : nullptr);
}

int resume_training(const TrainOptions& options) {
    if (!options.config.empty() || options.preset != "paper") {
        throw UserError(
            "--resume goes on with the settings of the run: leave --config and "
            "--preset away");
    }
    const Rank rank = rank_of_process();
    const RunFolder folder = RunFolder::of_run(options.resume);
    return in_job(rank, folder.path(),
                  [&](Job& job) { return go_on_training(options, rank, folder, job); });
}

void add_settings(CLI::App& command, TrainOptions& options) {
    const TrainSettings defaults = preset_settings("paper", options.task->name);
    for (const Setting* row : train_settings(options.task->name)) {
        const Setting& setting = *row;
        const std::string name{setting.name};
        if (name == "task") continue;  // the subcommand's own name

        const auto note = [&options, name](const std::string& value) {
            options.given[name] = value;
        };
        CLI::Option* option =
            setting.is_flag ? command.add_flag_callback(
                                  "--" + name, [note] { note("true"); }, std::string(setting.help))
                            : command.add_option_function<std::string>("--" + name, note,
                                                                       std::string(setting.help));
        option->group(std::string(setting.group));
        if (!setting.is_flag) option->default_str(setting.toml(defaults))->type_name("");
    }
}

void add_task(CLI::App& train_command, const Task& task, int* exit_code) {
    CLI::App* command =
        train_command.add_subcommand(std::string(task.name), std::string(task.summary));
    const auto options = std::make_shared<TrainOptions>();
    options->task = &task;
    command->footer(fmt::format("--data takes {}.", task.files));
    CLI::Option_group* where = command->add_option_group("folder");
    where->add_option("--out", options->out,
                      "new folder for config, metrics, checkpoints, patterns, kernels");
    where->add_option("--resume", options->resume,
                      "folder of a run to go on with, after its latest checkpoint");
    where->require_option(1);
    command->add_option("--preset", options->preset,
                        "paper, or demo: some two minutes on two cores without a GPU");
    command->add_option("--config", options->config,
                        "TOML file of settings (key = value, keys are the flags below); flags win");
    add_threads_option(*command);
    add_settings(*command, *options);
    command->callback([options, exit_code] {
        *exit_code = options->resume.empty() ? run_training(*options) : resume_training(*options);
    });
}

}  // namespace

void add_train(CLI::App& app, int* exit_code) {
    CLI::App* train_command =
        app.add_subcommand("train", "Train a Transformer: dense, then sparse (SPION)");
    train_command->require_subcommand(1);
    for (const Task* task : tasks()) add_task(*train_command, *task, exit_code);
}

}  // namespace spion
