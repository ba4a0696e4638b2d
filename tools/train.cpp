// `spion train listops`: the main job, from random weights to a sparse model and its kernels.
#include <cstdio>
#include <map>
#include <memory>
#include <string>

#include "ir/error.h"
#include "runtime/output.h"
#include "runtime/threads.h"
#include "tools/command_line.h"
#include "tools/commands.h"
#include "tools/exit_codes.h"
#include "train/data/lra_tsv.h"
#include "train/interrupt.h"
#include "train/phases.h"
#include "train/report.h"
#include "train/run_folder.h"
#include "train/settings.h"
#include "train/settings_file.h"

namespace spion {
namespace {

struct TrainOptions {
    std::string preset = "paper";
    std::string config;  // path of a TOML file; empty for none
    std::string out;
    std::map<std::string, std::string, std::less<>> given;  // flag name -> value as written
};

// The preset, changed by the config file, changed by the flags.
TrainSettings resolve(const TrainOptions& options) {
    TrainSettings settings = preset_settings(options.preset);
    if (!options.config.empty()) apply_settings_file(settings, options.config);
    for (const auto& [name, value] : options.given) {
        apply_setting(settings, name, value, "--" + name);
    }
    check(settings);
    return settings;
}

Dataset load_data(const TrainSettings& settings, Progress& progress) {
    if (!settings.data.empty()) {
        progress.say(fmt::format("reading {}", settings.data));
        return read_list_ops_folder(settings.data, settings.length);
    }
    const ListOpsSettings& data = settings.list_ops;
    progress.say(fmt::format("generating {} + {} + {} ListOps expressions of {} to {} tokens",
                             data.train_samples, data.validation_samples, data.test_samples,
                             data.min_length, data.max_length));
    return generate_list_ops(data, thread_count());
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

int run_training(const TrainOptions& options) {
    check_run_folder(options.out);
    const TrainSettings settings = resolve(options);
    Progress progress;
    const std::unique_ptr<Device> device = open_device(settings.device);
    progress.say(fmt::format("training on {}", device->name()));
    const Dataset data = load_data(settings, progress);
    KernelCache cache(KernelCache::checked_folders());
    RunFolder folder(options.out);
    folder.write_config(to_toml(settings));

    const TrainReport report = train(settings, data, *device, cache, folder, progress);
    folder.write_summary(report_json(report, settings, cache.counters(), *device));
    print_out("{}", report_text(report, settings, cache.counters(), folder));
    tell_lost_messages();
    if (report.divergence && report.divergence->ended_training) return kDiverged;
    constexpr int kBySignal = 128;
    return report.interrupted ? kBySignal + interrupting_signal() : kDone;
}

void add_settings(CLI::App& command, TrainOptions& options) {
    static const TrainSettings defaults;
    for (const Setting& setting : train_settings()) {
        const std::string name{setting.name};
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

}  // namespace

void add_train(CLI::App& app, int* exit_code) {
    CLI::App* train_command =
        app.add_subcommand("train", "Train a Transformer: dense, then sparse (SPION)");
    train_command->require_subcommand(1);
    CLI::App* command = train_command->add_subcommand(
        "listops", "ListOps, as in Long Range Arena, with the paper's settings as defaults");
    const auto options = std::make_shared<TrainOptions>();
    command->add_option("--out", options->out, "new folder for config, metrics, patterns, kernels")
        ->required();
    command->add_option("--preset", options->preset,
                        "paper, or demo: some two minutes on two cores without a GPU");
    command->add_option("--config", options->config,
                        "TOML file of settings (key = value, keys are the flags below); flags win");
    add_threads_option(*command);
    add_settings(*command, *options);
    command->callback([options, exit_code] { *exit_code = run_training(*options); });
}

}  // namespace spion
