// MNIST's IDX files, gzipped or not: a big-endian magic number, the sizes, then bytes.
#pragma once

#include <filesystem>

#include "train/data/pictures.h"

namespace spion {

// Pictures [n, rows, columns] and their labels [n], each 0 to 255. Throws UserError naming the file
// that cannot be read, is no IDX file of bytes with so many axes, is cut short or holds more than its
// sizes say, and when there are not as many labels as pictures.
PictureSamples read_idx(const std::filesystem::path& pictures, const std::filesystem::path& labels);

// The same without labels: they are 0.
PictureSamples read_idx_pictures(const std::filesystem::path& pictures);

}  // namespace spion
