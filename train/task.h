// A task: what is learnt, from which files, with which settings. Everything else in training is the
// same for all of them. A new task is one file in train/tasks/ and a row of the table in
// train/task.cpp (docs/guide/tasks.md).
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "train/data/dataset.h"
#include "train/settings.h"

namespace spion {

struct TaskData {
    std::shared_ptr<const Samples> train, validation, test;
    int classes = 0;                            // labels are 0 .. classes - 1
    int vocabulary = 0;                         // tokens are 0 .. vocabulary - 1
    int columns = 0;                            // of pictures; 0: sequences of another kind
    std::vector<std::string> class_names = {};  // [classes]; empty: their numbers
};

// Takes a line about what is being read or generated.
using Say = std::function<void(std::string_view)>;

struct Task {
    std::string_view name;     // the word after `spion train`
    std::string_view summary;  // for --help
    std::string_view files;    // what --data takes, for --help and for errors
    int towers = 1;            // sequences of a sample, each encoded by the same encoder

    void (*paper)(TrainSettings&);  // the paper's settings where they are not ListOps'
    void (*demo)(TrainSettings&);   // on top of those: small enough for a laptop without a GPU
    // Throws UserError for the task's own settings.
    void (*check)(const TrainSettings&);
    // Reads settings.data, or generates where that is empty and there is a generator. Throws
    // UserError with file and line for what it cannot read.
    TaskData (*load)(const TrainSettings&, const Say&);
    // Samples to predict, as `load` would read them; labels are optional there and else 0.
    std::shared_ptr<const Samples> (*load_unlabelled)(const std::filesystem::path&,
                                                      const TrainSettings&) = nullptr;
    // Writes generated samples in the form that `load` reads; null without a generator.
    void (*write)(const TrainSettings&, const std::filesystem::path& folder) = nullptr;
    std::string_view files_written = {};  // by `write`
    std::string_view recipe;              // how to get the data, printed by `spion data recipe`
};

// All tasks, in the order of --help.
std::span<const Task* const> tasks();

// Throws UserError that lists them for another name.
const Task& task_named(std::string_view name);

// Splits `all` in three by a permutation that depends on `seed` alone: the last `test` samples of it,
// the `validation` before those, and the rest. Throws UserError, beginning with `origin`, when
// nothing is left to train on.
TaskData split_at_random(std::shared_ptr<const Samples> all, std::int64_t validation,
                         std::int64_t test, std::uint64_t seed, std::string_view origin);

// The first `most` samples, all of them for 0.
std::shared_ptr<const Samples> at_most(std::shared_ptr<const Samples> all, std::int64_t most);

}  // namespace spion
