// Masks drawn as PNG pictures.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "io/mask.h"

namespace spion {

bool is_png(std::string_view bytes);

// A pixel a block or an element; white is set, black and transparent are not. Throws UserError that
// begins with `origin` for a damaged picture, one that is not square, a pixel of another
// brightness, and where spion was built without libpng.
FoundPattern parse_picture(std::string_view bytes, const PatternRequest& request,
                           const std::string& origin);

// What a PNG shows: [height, width] of red, green, blue; what is transparent lies on black.
struct Pixels {
    int height = 0, width = 0;
    std::vector<std::uint8_t> rgb;
};
// Throws UserError that begins with `origin` for a damaged picture, one of more than 2^24 pixels,
// and without libpng.
Pixels read_png(std::string_view bytes, const std::string& origin);

}  // namespace spion
