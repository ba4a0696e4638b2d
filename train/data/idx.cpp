#include "train/data/idx.h"

#include <array>
#include <string>
#include <string_view>

#include "io/gzip.h"
#include "ir/error.h"

namespace spion {
namespace {

constexpr std::size_t kWord = 4;  // bytes
constexpr std::uint32_t kBytes = 0x08;

std::uint32_t big_endian(std::string_view bytes, std::size_t at) {
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < kWord; ++i) {
        value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
    }
    return value;
}

template <std::size_t Axes>
struct Idx {
    std::array<std::uint32_t, Axes> sizes;
    Bytes bytes;
    std::string_view data;
};

template <std::size_t Axes>
Idx<Axes> read(const std::filesystem::path& file, std::string_view what) {
    Idx<Axes> idx{.sizes = {}, .bytes = read_bytes_unpacked(file.string()), .data = {}};
    const std::string_view bytes = idx.bytes.view;
    constexpr std::size_t kHeader = kWord * (Axes + 1);
    if (bytes.size() < kHeader || big_endian(bytes, 0) != (kBytes << 8 | Axes)) {
        throw UserError(
            "{} is no IDX file of {}: it must begin with the magic number 0x{:08x}; give MNIST's "
            "or Fashion-MNIST's files",
            file.string(), what, kBytes << 8 | Axes);
    }
    std::uint64_t count = 1;
    for (std::size_t axis = 0; axis < Axes; ++axis) {
        idx.sizes[axis] = big_endian(bytes, kWord * (axis + 1));
        constexpr std::uint64_t kMost = std::uint64_t{1} << 32;
        count = count >= kMost ? kMost : count * idx.sizes[axis];
    }
    idx.data = bytes.substr(kHeader);
    if (count == 0 || idx.data.size() != count) {
        throw UserError("{} holds {} bytes of {}, but its sizes say {}: fetch it again",
                        file.string(), idx.data.size(), what, count);
    }
    return idx;
}

}  // namespace

PictureSamples read_idx_pictures(const std::filesystem::path& pictures) {
    const auto images = read<3>(pictures, "pictures");
    PictureSamples samples;
    samples.rows = static_cast<int>(images.sizes[1]);
    samples.columns = static_cast<int>(images.sizes[2]);
    samples.pixels.assign(images.data.begin(), images.data.end());
    samples.labels.assign(images.sizes[0], 0);
    return samples;
}

PictureSamples read_idx(const std::filesystem::path& pictures,
                        const std::filesystem::path& labels) {
    PictureSamples samples = read_idx_pictures(pictures);
    const auto classes = read<1>(labels, "labels");
    if (samples.samples() != classes.sizes[0]) {
        throw UserError("{} has {} pictures, but {} has {} labels: give files that belong together",
                        pictures.string(), samples.samples(), labels.string(), classes.sizes[0]);
    }
    samples.labels.clear();
    for (const char label : classes.data) {
        samples.labels.push_back(static_cast<unsigned char>(label));
    }
    return samples;
}

}  // namespace spion
