// CIFAR-10 as distributed, turned grey: the binary form (a label byte, then 1024 red, 1024 green and
// 1024 blue a record) and Python's pickles.
#pragma once

#include <filesystem>

#include "train/data/pictures.h"

namespace spion {

// Whether the folder has a first batch of either form.
bool has_cifar(const std::filesystem::path& folder);

// data_batch_1 to data_batch_5, or test_batch. Throws UserError naming a file that is missing, cut
// short, or has a label above 9.
PictureSamples read_cifar(const std::filesystem::path& folder, bool train);

}  // namespace spion
