// The settings that say what is learnt from.
#include <utility>
#include <vector>

#include "train/setting_kinds.h"
#include "train/task.h"
#include "train/toml_letters.h"

namespace spion {
namespace {

Setting only(std::vector<std::string_view> names, Setting setting) {
    setting.tasks = std::move(names);
    return setting;
}

// ListOps has counts of its own (train/data/listops_generator.h).
Setting unless_listops(Setting setting) {
    for (const Task* task : tasks()) {
        if (task->name != "listops") setting.tasks.push_back(task->name);
    }
    return setting;
}

}  // namespace

std::vector<Setting> data_settings() {
    constexpr std::string_view group = "data";
    return {
        words(
            group, "data", "files to learn from (`spion data recipe TASK` says how to get them)",
            [](TrainSettings& s, std::string_view text, std::string_view given) {
                if (!is_utf8(text)) {
                    throw UserError(
                        "{} names a folder that is not UTF-8, which config.toml could not hold: "
                        "rename the folder",
                        given);
                }
                s.data = text;
            },
            [](const TrainSettings& s) { return std::string_view(s.data); }),
        number(group, "data-seed", "seed of generated samples, and of splits that are made here",
               SPION_FIELD(list_ops.seed), 0),
        only({"listops"},
             number(group, "train-samples", "generated", SPION_FIELD(list_ops.train_samples), 1)),
        only({"listops"}, number(group, "validation-samples", "generated",
                                 SPION_FIELD(list_ops.validation_samples), 1)),
        only({"listops"},
             number(group, "test-samples", "generated", SPION_FIELD(list_ops.test_samples), 1)),
        only({"listops"}, number(group, "min-length", "shortest generated expression, in tokens",
                                 SPION_FIELD(list_ops.min_length), 1)),
        only({"listops"}, number(group, "max-length", "longest generated expression, in tokens",
                                 SPION_FIELD(list_ops.max_length), 1)),
        only({"listops"}, number(group, "max-depth", "levels of a generated expression",
                                 SPION_FIELD(list_ops.max_depth), 2, 1000)),
        only({"listops"}, number(group, "max-arguments", "most arguments of a generated operator",
                                 SPION_FIELD(list_ops.max_arguments), 2, 64)),
        only({"listops"},
             number(group, "operator-probability", "of a generated node above the last level",
                    SPION_FIELD(list_ops.operator_probability), 0.0, 1.0)),
        unless_listops(number(group, "train-samples",
                              "at most so many of the files, or so many generated; 0: all",
                              SPION_FIELD(samples.train), 0)),
        unless_listops(number(group, "validation-samples",
                              "likewise; held out of the training samples where the files have no "
                              "validation split",
                              SPION_FIELD(samples.validation), 0)),
        unless_listops(number(group, "test-samples",
                              "likewise; held out where the files have no test split",
                              SPION_FIELD(samples.test), 0)),
        only(
            {"text", "retrieval"},
            number(group, "cut",
                   "longer texts are cut to so many bytes; 0: those longer than length are refused",
                   SPION_FIELD(cut), 0)),
        only({"text", "retrieval"},
             number(group, "ngram",
                    "1: a token is a byte; n: it is the hash of n bytes, one of vocabulary",
                    SPION_FIELD(ngram), 1, 16)),
        only({"image"}, number(group, "border", "rings of black pixels put around each picture",
                               SPION_FIELD(border), 0, 512)),
    };
}

}  // namespace spion
