// Grey pictures as sequences: one token a pixel, row by row, its value the token (0 to 255, so that
// black is token 0 and counts like any other; every sequence is as long as the picture).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "train/data/dataset.h"

namespace spion {

constexpr int kGreyLevels = 256;

struct PictureSamples final : Samples {
    int rows = 0, columns = 0;
    std::vector<std::uint8_t> pixels;   // [samples, rows, columns]
    std::vector<std::uint16_t> labels;  // [samples]
    int border = 0;                     // rings of zeros that `read` puts around a picture

    std::int64_t samples() const override { return static_cast<std::int64_t>(labels.size()); }
    int label(std::int64_t index) const override { return labels[static_cast<std::size_t>(index)]; }
    void read(std::int64_t index, int tower, std::vector<std::uint16_t>& out) const override;
    // Tokens of a sequence: (rows + 2 border) * (columns + 2 border).
    std::int64_t length() const;
    // Appends a picture of `rows` x `columns`, which the first one sets. Throws UserError that
    // begins with `origin` for one of another size.
    void append(const std::uint8_t* grey, int its_rows, int its_columns, int label,
                std::string_view origin);
};

// The grey value that Long Range Arena's pictures have: TensorFlow's, truncated in float32, not
// rounded (R = G = B stays as it is).
std::uint8_t grey_of(std::uint8_t red, std::uint8_t green, std::uint8_t blue);

}  // namespace spion
