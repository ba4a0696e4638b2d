// How the files of a data set are found, whatever it is called: one a split, in a folder.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "train/data/records.h"
#include "train/task.h"

namespace spion {

// The first of FOLDER/{prefix}{name}{ending} that exists.
std::optional<std::filesystem::path> find_split(const std::filesystem::path& folder,
                                                const std::vector<std::string_view>& prefixes,
                                                const std::vector<std::string_view>& names,
                                                const std::vector<std::string_view>& endings);

// What a validation split is called by those who make data sets.
inline const std::vector<std::string_view> kValidationNames = {"validation", "valid", "val", "dev",
                                                               "eval"};

// Records (train/data/records.h) of a folder with train, validation and test files whose names begin
// with one of `prefixes`, or of a single file. Where the validation or the test file is missing,
// samples are held out of the training samples at random. Labels are numbered as the training
// samples have them. Throws UserError for a folder without a training file.
TaskData load_records(const TrainSettings& settings, int towers,
                      const std::vector<std::string_view>& prefixes, std::string_view files,
                      const Say& say);

// What a text's tokens are by the settings: bytes, or n-grams hashed to what the vocabulary has room
// for beside the class token.
TextTokens text_tokens(const TrainSettings& settings);

// Records to predict: with or without labels.
std::shared_ptr<const Samples> load_records_unlabelled(const std::filesystem::path& file,
                                                       const TrainSettings& settings, int towers);

}  // namespace spion
