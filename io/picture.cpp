#include "io/picture.h"

#ifdef SPION_PNG
#include <png.h>
#endif

#include <cstdint>
#include <vector>

#include "ir/error.h"

namespace spion {
namespace {

#ifdef SPION_PNG
// Of 0 to 255; what lies between is a colour, not a mask.
constexpr int kBlackest = 64, kWhitest = 192;

// libpng's state, freed at the end.
struct Image {
    png_image state = {};
    Image() { state.version = PNG_IMAGE_VERSION; }
    ~Image() { png_image_free(&state); }
    Image(const Image&) = delete;
    Image& operator=(const Image&) = delete;
};
#endif

}  // namespace

bool is_png(std::string_view bytes) {
    return bytes.starts_with("\x89PNG\r\n\x1a\n");
}

#ifdef SPION_PNG
Pixels read_png(std::string_view bytes, const std::string& origin) {
    Image image;
    const auto fail = [&]() {
        throw UserError("{}: the picture is damaged ({}): save it again", origin,
                        static_cast<const char*>(image.state.message));
    };
    if (png_image_begin_read_from_memory(&image.state, bytes.data(), bytes.size()) == 0) {
        fail();
    }
    constexpr std::uint64_t kMostPixels = std::uint64_t{1} << 24;
    if (std::uint64_t{image.state.width} * image.state.height > kMostPixels) {
        throw UserError("{}: the picture has {} x {} pixels, more than {}", origin,
                        image.state.height, image.state.width, kMostPixels);
    }
    image.state.format = PNG_FORMAT_RGB;
    Pixels pixels{.height = static_cast<int>(image.state.height),
                  .width = static_cast<int>(image.state.width),
                  .rgb = std::vector<std::uint8_t>(PNG_IMAGE_SIZE(image.state))};
    const png_color background{.red = 0, .green = 0, .blue = 0};
    if (png_image_finish_read(&image.state, &background, pixels.rgb.data(), 0, nullptr) == 0) {
        fail();
    }
    return pixels;
}

FoundPattern parse_picture(std::string_view bytes, const PatternRequest& request,
                           const std::string& origin) {
    Image image;
    const auto fail = [&]() {
        throw UserError("{}: the picture is damaged ({}): save it again", origin,
                        static_cast<const char*>(image.state.message));
    };
    if (png_image_begin_read_from_memory(&image.state, bytes.data(), bytes.size()) == 0) {
        fail();
    }
    const std::int64_t edge = image.state.width;
    if (edge != image.state.height) {
        throw UserError("{}: the picture has {} x {} pixels: give a square one", origin,
                        image.state.height, image.state.width);
    }
    const MaskGrid grid = mask_grid(edge, request, origin);  // before anything of that size is made
    image.state.format = PNG_FORMAT_GRAY;
    std::vector<std::uint8_t> pixels(static_cast<std::size_t>(edge * edge));
    const png_color background{.red = 0, .green = 0, .blue = 0};  // under what is transparent
    if (png_image_finish_read(&image.state, &background, pixels.data(), 0, nullptr) == 0) {
        fail();
    }
    return pattern_of_mask(grid, [&](const SetCell& set) {
        for (std::int64_t i = 0; i < edge * edge; ++i) {
            const int grey = pixels[static_cast<std::size_t>(i)];
            if (grey > kBlackest && grey < kWhitest) {
                throw UserError(
                    "{}: pixel [{}, {}] is grey ({}): use white for what is set and "
                    "black for what is not",
                    origin, i / edge, i % edge, grey);
            }
            if (grey >= kWhitest) {
                set(i / edge, i % edge);
            }
        }
    });
}
#else
Pixels read_png(std::string_view /*bytes*/, const std::string& origin) {
    throw UserError("{} is a PNG, and this build has no libpng: give another form", origin);
}

FoundPattern parse_picture(std::string_view /*bytes*/, const PatternRequest& /*request*/,
                           const std::string& origin) {
    throw UserError(
        "{}: is a picture and this spion was built without libpng: give a .npy mask, or "
        "build with libpng",
        origin);
}
#endif

}  // namespace spion
