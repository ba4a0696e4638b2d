// The presets.
#include "ir/error.h"
#include "train/settings.h"
#include "train/task.h"

namespace spion {

TrainSettings preset_settings(std::string_view name, std::string_view task_name) {
    if (name != "paper" && name != "demo") {
        throw UserError("--preset is '{}', but it takes paper or demo", name);
    }
    const Task& task = task_named(task_name);
    TrainSettings settings;
    settings.task = task.name;
    settings.attention_dropout = settings.dropout;
    task.paper(settings);
    if (name == "demo") {
        settings.attention_dropout = 0;
        task.demo(settings);
    }
    return settings;
}

}  // namespace spion
