#include "train/data/pictures.h"

#include <algorithm>

#include "ir/error.h"

namespace spion {

std::int64_t PictureSamples::length() const {
    return std::int64_t{rows + 2 * border} * (columns + 2 * border);
}

void PictureSamples::read(std::int64_t index, int tower, std::vector<std::uint16_t>& out) const {
    if (tower != 0) throw InternalError("samples of one tower have no tower {}", tower);
    out.assign(static_cast<std::size_t>(length()), 0);
    const int width = columns + 2 * border;
    const std::uint8_t* from = pixels.data() + static_cast<std::ptrdiff_t>(index) * rows * columns;
    for (int row = 0; row < rows; ++row) {
        std::copy(from + row * columns, from + (row + 1) * columns,
                  out.begin() + (row + border) * width + border);
    }
}

void PictureSamples::append(const std::uint8_t* grey, int its_rows, int its_columns, int label,
                            std::string_view origin) {
    if (labels.empty()) {
        rows = its_rows;
        columns = its_columns;
    } else if (its_rows != rows || its_columns != columns) {
        throw UserError("{} has {} x {} pixels, the pictures before it {} x {}: make them equal",
                        origin, its_rows, its_columns, rows, columns);
    }
    pixels.insert(pixels.end(), grey, grey + std::int64_t{its_rows} * its_columns);
    labels.push_back(static_cast<std::uint16_t>(label));
}

std::uint8_t grey_of(std::uint8_t red, std::uint8_t green, std::uint8_t blue) {
    constexpr float kToUnit = 1.0F / 255.0F;
    const float value = 0.2989F * (static_cast<float>(red) * kToUnit) +
                        0.5870F * (static_cast<float>(green) * kToUnit) +
                        0.1140F * (static_cast<float>(blue) * kToUnit);
    return static_cast<std::uint8_t>(std::min(255.0F, value * 255.5F));
}

}  // namespace spion
