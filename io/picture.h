// Masks drawn as PNG pictures.
#pragma once

#include <string>
#include <string_view>

#include "io/mask.h"

namespace spion {

bool is_png(std::string_view bytes);

// A pixel a block or an element; white is set, black and transparent are not. Throws UserError that
// begins with `origin` for a damaged picture, one that is not square, a pixel of another
// brightness, and where spion was built without libpng.
FoundPattern parse_picture(std::string_view bytes, const PatternRequest& request,
                           const std::string& origin);

}  // namespace spion
