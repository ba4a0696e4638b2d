// libFuzzer target: any bytes, by the first one as the pictures or labels of an IDX file or as CIFAR-10's
// test batch in either form, are refused with the file's name or are as many pictures as labels.
#include "ir/error.h"
#include "tests/fuzz/refusal.h"
#include "train/data/cifar.h"
#include "train/data/idx.h"

namespace {

using namespace spion;

// Two pictures of 2 x 2, and their labels.
constexpr std::string_view kPictures{
    "\0\0\x08\x03\0\0\0\x02\0\0\0\x02\0\0\0\x02"
    "abcdefgh",
    24};
constexpr std::string_view kLabels{"\0\0\x08\x01\0\0\0\x02\x05\x07", 10};

PictureSamples read_as(int kind, const FuzzFolder& folder, std::string_view given) {
    switch (kind) {
        case 0:
            return read_idx(folder.write("pictures", given), folder.write("labels", kLabels));
        case 1:
            return read_idx(folder.write("pictures", kPictures), folder.write("labels", given));
        case 2:
            return read_idx_pictures(folder.write("pictures", given));
        case 3:
            folder.write("binary/data_batch_1.bin", "");
            folder.write("binary/test_batch.bin", given);
            return read_cifar(folder.path() / "binary", false);
        default:
            folder.write("pickled/data_batch_1", "");
            folder.write("pickled/test_batch", given);
            return read_cifar(folder.path() / "pickled", false);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const FuzzFolder folder;
    const int kind = size > 0 ? data[0] % 5 : 0;
    try {
        const PictureSamples samples =
            read_as(kind, folder, text_of(data, size).substr(size > 0 ? 1 : 0));
        const auto pixels = static_cast<std::size_t>(samples.samples() * samples.length());
        require_whole(samples.pixels.size() == pixels ? "" : "pixels and labels do not match");
        std::vector<std::uint16_t> tokens;
        for (std::int64_t i = 0; i < samples.samples(); ++i) samples.read(i, 0, tokens);
    } catch (const UserError& error) {
        const std::string_view message = error.what();
        const bool named = message.find(folder.path().string()) != std::string_view::npos;
        require_whole(named ? refused_well(error) : "refused without the file's name");
    }
    return 0;
}
