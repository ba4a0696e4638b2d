// Folders of PNGs, one folder a class.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "train/data/pictures.h"

namespace spion {

// Appends a picture, turned grey.
void append_png(const std::filesystem::path& file, int label, PictureSamples& samples);

// FOLDER/CLASS/*.png in the order of their names. `classes` gets the names of the classes, or has
// them already. Throws UserError for other classes, no pictures, and pictures of different sizes.
PictureSamples read_png_classes(const std::filesystem::path& folder,
                                std::vector<std::string>& classes);

}  // namespace spion
