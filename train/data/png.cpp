#include "train/data/png.h"

#include <algorithm>

#include "io/bytes.h"
#include "io/picture.h"
#include "ir/error.h"

namespace spion {
namespace {

namespace fs = std::filesystem;

// What lies in a folder, by name.
std::vector<fs::path> entries_of(const fs::path& folder) {
    std::vector<fs::path> entries;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
        entries.push_back(entry.path());
    }
    std::sort(entries.begin(), entries.end());
    return entries;
}

}  // namespace

void append_png(const fs::path& file, int label, PictureSamples& samples) {
    const Pixels pixels = read_png(read_bytes(file.string()).view, file.string());
    std::vector<std::uint8_t> grey;
    grey.reserve(pixels.rgb.size() / 3);
    for (std::size_t i = 0; i + 2 < pixels.rgb.size(); i += 3) {
        grey.push_back(grey_of(pixels.rgb[i], pixels.rgb[i + 1], pixels.rgb[i + 2]));
    }
    samples.append(grey.data(), pixels.height, pixels.width, label, file.string());
}

PictureSamples read_png_classes(const fs::path& folder, std::vector<std::string>& classes) {
    const std::vector<fs::path> folders = entries_of(folder);
    if (classes.empty()) {
        for (const fs::path& entry : folders) {
            if (fs::is_directory(entry)) classes.push_back(entry.filename().string());
        }
    }
    PictureSamples samples;
    for (const fs::path& entry : folders) {
        if (!fs::is_directory(entry)) continue;
        const auto found = std::find(classes.begin(), classes.end(), entry.filename().string());
        if (found == classes.end()) {
            throw UserError("{} is a class that the training pictures do not have", entry.string());
        }
        for (const fs::path& file : entries_of(entry)) {
            if (file.extension() != ".png") continue;
            append_png(file, static_cast<int>(found - classes.begin()), samples);
        }
    }
    if (samples.samples() == 0) {
        throw UserError("{} holds no CLASS/*.png", folder.string());
    }
    return samples;
}

}  // namespace spion
