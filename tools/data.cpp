// `spion data TASK`: writes generated samples as files; `spion data recipe`: how to get real ones.
#include <algorithm>
#include <memory>
#include <string>

#include "ir/error.h"
#include "runtime/output.h"
#include "tools/command_line.h"
#include "tools/commands.h"
#include "train/run_folder.h"
#include "train/settings.h"
#include "train/task.h"

namespace spion {
namespace {

struct DataOptions {
    const Task* task = nullptr;
    std::string out;
    TrainSettings settings;
};

void write_data(const DataOptions& options) {
    check_run_folder(options.out);
    options.task->write(options.settings, options.out);
    print_out("wrote {} to {}\n", options.task->files_written, options.out);
}

void add_generator(CLI::App& data, const Task& task) {
    CLI::App* command = data.add_subcommand(std::string(task.name),
                                            fmt::format("{}: {}", task.name, task.files_written));
    const auto options = std::make_shared<DataOptions>();
    options->task = &task;
    options->settings = preset_settings("paper", task.name);
    command->add_option("--out", options->out, "new folder for the files")->required();
    add_threads_option(*command);
    for (const Setting* setting : train_settings(task.name)) {
        if (setting->group != "data" || setting->name == "data") continue;
        const std::string name{setting->name};
        command
            ->add_option_function<std::string>(
                "--" + name,
                [options, name](const std::string& value) {
                    apply_setting(options->settings, name, value, "--" + name);
                },
                std::string(setting->help))
            ->default_str(setting->toml(options->settings))
            ->type_name("");
    }
    command->callback([options] { write_data(*options); });
}

void add_recipe(CLI::App& data) {
    CLI::App* command = data.add_subcommand("recipe", "How to get a task's data, as commands");
    const auto name = std::make_shared<std::string>();
    command->add_option("task", *name, "a task of `spion train`")->required();
    command->callback([name] { print_out("{}", task_named(*name).recipe); });
}

}  // namespace

void add_data(CLI::App& app, int*) {
    CLI::App* data =
        app.add_subcommand("data", "Write generated training data; say how to get other data");
    data->require_subcommand(1);
    for (const Task* task : tasks()) {
        if (task->write != nullptr) add_generator(*data, *task);
    }
    add_recipe(*data);
}

}  // namespace spion
