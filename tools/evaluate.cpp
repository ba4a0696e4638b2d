// `spion evaluate` and `spion predict`: a trained model on data that has labels, and on any other.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "ir/error.h"
#include "runtime/output.h"
#include "tools/command_line.h"
#include "tools/commands.h"
#include "train/progress.h"
#include "train/task.h"
#include "train/trained_model.h"

namespace spion {
namespace {

namespace fs = std::filesystem;

struct Options {
    std::string checkpoint;
    std::string data;  // of evaluate: in the place of the run's; of predict: the file
    std::string split = "test";
    std::string device = "auto";
    int batch = 0;  // 0: that of training
};

// A file, or the folder of a run, which stands for its best checkpoint.
Checkpoint read(const Options& options) {
    const fs::path path = options.checkpoint;
    std::error_code ignored;
    if (!fs::is_directory(path, ignored)) return read_checkpoint(path);
    const fs::path best = path / "checkpoints" / "best.safetensors";
    if (!fs::exists(best, ignored)) {
        throw UserError(
            "{} has no checkpoints/best.safetensors: name a checkpoint or a run's folder",
            path.string());
    }
    return read_checkpoint(best);
}

int batch_of(const Options& options, const Checkpoint& checkpoint) {
    return options.batch > 0 ? options.batch : checkpoint.settings.batch;
}

std::shared_ptr<const Samples> labelled(const Options& options, Checkpoint& checkpoint) {
    TrainSettings& settings = checkpoint.settings;
    if (!options.data.empty()) apply_setting(settings, "data", options.data, "--data");
    check(settings);
    Progress progress;
    const TaskData data = task_named(settings.task).load(settings, [&](std::string_view text) {
        progress.say(text);
    });
    if (data.classes != checkpoint.classes || data.class_names != checkpoint.class_names) {
        throw UserError(
            "the model knows {} classes, the data has {} or other names of them: give "
            "data like that it was trained on",
            checkpoint.classes, data.classes);
    }
    if (options.split == "train") return data.train;
    if (options.split == "validation") return data.validation;
    if (options.split == "test") return data.test;
    throw UserError("--split is '{}', but it takes test, validation or train", options.split);
}

void run_evaluate(const Options& options) {
    Checkpoint checkpoint = read(options);
    const std::shared_ptr<const Samples> samples = labelled(options, checkpoint);
    const auto device = open_device(parse_device_choice(options.device));
    KernelCache cache(KernelCache::checked_folders());
    const int batch = batch_of(options, checkpoint);
    TrainedModel trained(checkpoint, batch, *device, cache);
    const Evaluation found = evaluate(trained.model(), *device, *samples, batch);
    print_out("step {}: {} loss {:.4f}, accuracy {:.2f} % of {} samples\n", checkpoint.state.step,
              options.split, found.loss, 100.0 * found.accuracy, samples->samples());
}

// A line of JSON a sample.
std::string prediction(const Checkpoint& checkpoint, const float* logits) {
    const float* best = std::max_element(logits, logits + checkpoint.classes);
    double sum = 0;
    std::string text;
    for (int k = 0; k < checkpoint.classes; ++k) {
        sum += std::exp(double{logits[k]} - double{*best});
        text += fmt::format("{}{:.9g}", k == 0 ? "" : ", ", logits[k]);
    }
    const auto label = static_cast<std::size_t>(best - logits);
    const std::string name = label < checkpoint.class_names.size() ? checkpoint.class_names[label]
                                                                   : fmt::format("{}", label);
    return fmt::format(
        "{{\"label\": {}, \"probability\": {:.6f}, \"logits\": [{}]}}\n",
        nlohmann::json(name).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace),
        1.0 / sum, text);
}

void run_predict(const Options& options) {
    const Checkpoint checkpoint = read(options);
    const Task& task = task_named(checkpoint.settings.task);
    const std::shared_ptr<const Samples> samples =
        task.load_unlabelled(options.data, checkpoint.settings);
    const auto device = open_device(parse_device_choice(options.device));
    KernelCache cache(KernelCache::checked_folders());
    TrainedModel trained(checkpoint, batch_of(options, checkpoint), *device, cache);
    const std::vector<float> logits = trained.logits(*samples);
    std::string text;
    for (std::size_t at = 0; at < logits.size();
         at += static_cast<std::size_t>(checkpoint.classes)) {
        text += prediction(checkpoint, logits.data() + at);
    }
    write_out(text);
}

void add_common(CLI::App& command, Options& options) {
    command
        .add_option("checkpoint", options.checkpoint,
                    "a file of RUN/checkpoints, or RUN for the best by validation")
        ->required();
    command.add_option("--device", options.device, "auto, cpu or cuda")->capture_default_str();
    command.add_option("--batch", options.batch, "samples at a time; 0: as in training")
        ->check(CLI::Range(0, 65536));
    add_threads_option(command);
}

}  // namespace

void add_evaluate(CLI::App& app, int*) {
    CLI::App* command =
        app.add_subcommand("evaluate", "Loss and accuracy of a trained model on a split");
    const auto options = std::make_shared<Options>();
    add_common(*command, *options);
    command->add_option("--data", options->data, "in the place of the data it was trained on");
    command->add_option("--split", options->split, "test, validation or train")
        ->capture_default_str();
    command->callback([options] { run_evaluate(*options); });
}

void add_predict(CLI::App& app, int*) {
    CLI::App* command = app.add_subcommand(
        "predict", "What a trained model says of each sample of a file, a line of JSON each");
    const auto options = std::make_shared<Options>();
    add_common(*command, *options);
    command->add_option("file", options->data, "samples as the task reads them; labels may lack")
        ->required();
    command->callback([options] { run_predict(*options); });
}

}  // namespace spion
