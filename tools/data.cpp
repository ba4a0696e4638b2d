// `spion data listops`: writes generated samples as Long Range Arena's files.
#include <algorithm>
#include <memory>
#include <string>

#include "ir/error.h"
#include "runtime/output.h"
#include "runtime/threads.h"
#include "tools/command_line.h"
#include "tools/commands.h"
#include "train/data/lra_tsv.h"
#include "train/run_folder.h"
#include "train/settings.h"

namespace spion {
namespace {

struct DataOptions {
    std::string out;
    TrainSettings settings;
};

void write_data(const DataOptions& options) {
    check_run_folder(options.out);
    write_list_ops_folder(generate_list_ops(options.settings.list_ops, thread_count()),
                          options.out);
    print_out("wrote basic_train.tsv, basic_val.tsv and basic_test.tsv to {}\n", options.out);
}

}  // namespace

void add_data(CLI::App& app, int*) {
    CLI::App* data = app.add_subcommand("data", "Write generated training data");
    data->require_subcommand(1);
    CLI::App* command = data->add_subcommand(
        "listops", "ListOps as Long Range Arena stores it: basic_{train,val,test}.tsv");
    const auto options = std::make_shared<DataOptions>();
    command->add_option("--out", options->out, "new folder for the files")->required();
    add_threads_option(*command);
    for (const Setting& setting : train_settings()) {
        if (setting.group != "data" || setting.name == "data") continue;
        const std::string name{setting.name};
        command
            ->add_option_function<std::string>(
                "--" + name,
                [options, name](const std::string& value) {
                    apply_setting(options->settings, name, value, "--" + name);
                },
                std::string(setting.help))
            ->default_str(setting.toml(options->settings))
            ->type_name("");
    }
    command->callback([options] { write_data(*options); });
}

}  // namespace spion
