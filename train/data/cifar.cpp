#include "train/data/cifar.h"

#include <fmt/format.h>

#include <string>
#include <vector>

#include "io/bytes.h"
#include "ir/error.h"
#include "train/data/pickle.h"

namespace spion {
namespace {

namespace fs = std::filesystem;

constexpr int kEdge = 32;
constexpr std::size_t kPlane = kEdge * kEdge;
constexpr std::size_t kPicture = 3 * kPlane;
constexpr int kClasses = 10;

void append(std::string_view planes, int label, const std::string& origin,
            PictureSamples& samples) {
    if (label < 0 || label >= kClasses) {
        throw UserError("{} has the label {}, but CIFAR-10's are 0 to 9: is it CIFAR-10?", origin,
                        label);
    }
    const auto at = [&](std::size_t i) { return static_cast<std::uint8_t>(planes[i]); };
    std::uint8_t grey[kPlane];
    for (std::size_t i = 0; i < kPlane; ++i) {
        grey[i] = grey_of(at(i), at(kPlane + i), at(2 * kPlane + i));
    }
    samples.append(grey, kEdge, kEdge, label, origin);
}

void read_binary(const fs::path& file, PictureSamples& samples) {
    const std::string origin = file.string();
    const Bytes bytes = read_bytes(origin);
    constexpr std::size_t kRecord = 1 + kPicture;
    if (bytes.view.size() % kRecord != 0) {
        throw UserError("{} has {} bytes, not a multiple of the {} of a record: fetch it again",
                        origin, bytes.view.size(), kRecord);
    }
    for (std::size_t at = 0; at < bytes.view.size(); at += kRecord) {
        append(bytes.view.substr(at + 1, kPicture), static_cast<unsigned char>(bytes.view[at]),
               origin, samples);
    }
}

void read_pickled(const fs::path& file, PictureSamples& samples) {
    const std::string origin = file.string();
    const Bytes bytes = read_bytes(origin);
    const PickleValue batch = read_pickle(bytes.view, origin);
    const PickleValue& data = batch.member("data", origin);
    const std::vector<std::int64_t> labels = batch.member("labels", origin).integers(origin);
    const std::string_view planes = data.array_bytes(1, origin);
    if (planes.size() != labels.size() * kPicture) {
        throw UserError("{} has {} bytes of pictures for {} labels: fetch it again", origin,
                        planes.size(), labels.size());
    }
    for (std::size_t i = 0; i < labels.size(); ++i) {
        append(planes.substr(i * kPicture, kPicture), static_cast<int>(labels[i]), origin, samples);
    }
}

}  // namespace

bool has_cifar(const fs::path& folder) {
    std::error_code ignored;
    return fs::exists(folder / "data_batch_1.bin", ignored) ||
           fs::exists(folder / "data_batch_1", ignored);
}

PictureSamples read_cifar(const fs::path& folder, bool train) {
    PictureSamples samples;
    std::error_code ignored;
    const bool binary = fs::exists(folder / "data_batch_1.bin", ignored);
    const auto read = [&](const std::string& name) {
        binary ? read_binary(folder / (name + ".bin"), samples)
               : read_pickled(folder / name, samples);
    };
    if (!train) {
        read("test_batch");
    } else {
        constexpr int kBatches = 5;
        for (int batch = 1; batch <= kBatches; ++batch) read(fmt::format("data_batch_{}", batch));
    }
    return samples;
}

}  // namespace spion
