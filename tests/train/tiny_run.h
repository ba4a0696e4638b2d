// Whole training runs of a second, and their metrics read back.
#pragma once

#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "tests/train/files.h"
#include "tests/train/test_cache.h"
#include "train/checkpoint.h"
#include "train/data/listops_generator.h"
#include "train/phases.h"

namespace spion {

inline TrainSettings tiny_settings(DeviceChoice device = DeviceChoice::kCpu) {
    TrainSettings settings;
    settings.device = device;
    settings.steps = 24;
    settings.batch = 4;
    settings.eval_every = 4;
    settings.length = 120;  // not a multiple of the block
    settings.layers = 2;
    settings.heads = 1;
    settings.head_dim = settings.d_model = 16;
    settings.feed_forward = 24;
    settings.warmup = 4;
    settings.discovery.block = 16;
    settings.discovery.quantile = 0.8;
    settings.list_ops = {.train_samples = 64,
                         .validation_samples = 6,
                         .test_samples = 10,
                         .min_length = 20,
                         .max_length = 110};
    return settings;
}

// fp32's gradients overflow as fp16's do: a scale near its largest number, and gradients that neither
// the mean over L nor small weights keep small.
inline void let_gradients_overflow(TrainSettings& settings) {
    settings.loss_scale = 3e38;
    settings.pooling = Pooling::kCls;
    settings.batch = 2;
    settings.learning_rate = 3;
}

struct Outcome {
    TrainReport report;
    std::vector<std::map<std::string, std::string>> rows;  // metrics.csv by column name
    std::string summary_of_losses() const {
        std::string text;
        for (const auto& row : rows) {
            text += row.at("step") + row.at("phase") + row.at("split") + ' ' + row.at("loss") +
                    ' ' + row.at("accuracy") + ' ' + row.at("learning_rate") + '\n';
        }
        return text;
    }
};

inline std::vector<std::string> cells(const std::string& line) {
    std::vector<std::string> result(1);
    for (const char c : line) {
        if (c == ',') {
            result.emplace_back();
        } else {
            result.back() += c;
        }
    }
    return result;
}

// Begins a run, or goes on with one that has left the folder. On a device of the settings, or another.
inline Outcome run(const TrainSettings& settings, const std::filesystem::path& path,
                   const Checkpoint* from = nullptr, Device* on = nullptr) {
    check(settings);
    const auto opened = on == nullptr ? open_device(settings.device) : nullptr;
    Device& device = on == nullptr ? *opened : *on;
    const TaskData data = task_named(settings.task).load(settings, [](std::string_view) {});
    KernelCache cache(test_cache_root());
    RunFolder folder = from == nullptr ? RunFolder(path) : RunFolder::of_run(path);
    if (from == nullptr) folder.write_config(to_toml(settings));
    Progress progress([](std::string_view) {}, [] { return Terminal{}; });
    Outcome result{.report = train(settings, data, device, cache, folder, progress, from),
                   .rows = {}};
    std::istringstream metrics(read_file(folder.metrics_file()));
    std::string line;
    std::getline(metrics, line);
    const auto names = cells(line);
    while (std::getline(metrics, line)) {
        const auto values = cells(line);
        EXPECT_EQ(values.size(), names.size()) << line;
        auto& row = result.rows.emplace_back();
        for (std::size_t i = 0; i < names.size(); ++i) row[names[i]] = values.at(i);
    }
    return result;
}

inline int count(const Outcome& run, const std::string& phase, const std::string& split) {
    int found = 0;
    for (const auto& row : run.rows) {
        if (row.at("phase") == phase && row.at("split") == split) ++found;
    }
    return found;
}

}  // namespace spion
