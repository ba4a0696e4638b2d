#include "train/data/idx.h"

#include <gtest/gtest.h>

#include <string>

#include "ir/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/scratch_folder.h"

namespace spion {
namespace {

// Three pictures of 2 x 3 pixels.
const std::string kPictures = std::string("\0\0\x08\x03\0\0\0\x03\0\0\0\x02\0\0\0\x03", 16) +
                              std::string("\x00\x01\x02\x03\x04\x05", 6) +
                              std::string("\xff\xfe\xfd\xfc\xfb\xfa", 6) + std::string(6, '\x07');
const std::string kLabels =
    std::string("\0\0\x08\x01\0\0\0\x03", 8) + std::string("\x09\x00\x02", 3);

class Idx : public testing::Test {
  protected:
    PictureSamples read(const std::string& pictures, const std::string& labels) {
        folder_.write("pictures", pictures);
        folder_.write("labels", labels);
        return read_idx(folder_.file("pictures"), folder_.file("labels"));
    }
    void expect_refused(const std::string& pictures, const std::string& labels,
                        const std::string& text) {
        expect_error<UserError>([&] { read(pictures, labels); }, text);
    }
    ScratchFolder folder_;
};

TEST_F(Idx, ReadsPicturesAndLabels) {
    PictureSamples samples = read(kPictures, kLabels);
    ASSERT_EQ(samples.samples(), 3);
    EXPECT_EQ(samples.label(0), 9);
    EXPECT_EQ(samples.label(2), 2);
    std::vector<std::uint16_t> tokens;
    samples.read(1, 0, tokens);
    EXPECT_EQ(tokens, (std::vector<std::uint16_t>{255, 254, 253, 252, 251, 250}));
    samples.border = 1;
    EXPECT_EQ(samples.length(), 20);
    samples.read(1, 0, tokens);
    EXPECT_EQ(tokens, (std::vector<std::uint16_t>{0, 0,   0,   0,   0, 0, 255, 254, 253, 0,
                                                  0, 252, 251, 250, 0, 0, 0,   0,   0,   0}));
}

TEST_F(Idx, RefusesWhatIsNoIdxFileOrNotWhole) {
    expect_refused("", kLabels, "pictures is empty");
    expect_refused(kLabels, kLabels,
                   "pictures is no IDX file of pictures: it must begin with the "
                   "magic number 0x00000803");
    expect_refused(kPictures, kPictures, "labels is no IDX file of labels");
    expect_refused(kPictures.substr(0, 20), kLabels,
                   "pictures holds 4 bytes of pictures, but its sizes say 18");
    expect_refused(kPictures + "x", kLabels, "holds 19 bytes of pictures, but its sizes say 18");
    std::string wide = kPictures;
    wide[8] = wide[4] = wide[12] = '\xff';  // a product beyond 64 bits
    expect_refused(wide, kLabels, "but its sizes say");
    expect_refused(kPictures, std::string("\0\0\x08\x01\0\0\0\x02", 8) + "ab",
                   "has 3 pictures, but");
    expect_error<UserError>([&] { read_idx(folder_.file("none"), folder_.file("labels")); },
                            "none cannot be read");
}

// TensorFlow's formula, worked by hand in float32: white, black, greys and single colours.
TEST(Grey, IsTensorFlows) {
    for (int value = 0; value < 256; ++value) {
        const auto v = static_cast<std::uint8_t>(value);
        EXPECT_EQ(grey_of(v, v, v), value) << value;
    }
    EXPECT_EQ(grey_of(255, 0, 0), 76);
    EXPECT_EQ(grey_of(0, 255, 0), 149);
    EXPECT_EQ(grey_of(0, 0, 255), 29);
    EXPECT_EQ(grey_of(10, 200, 30), 124);  // 0.2989*10 + 0.587*200 + 0.114*30 = 123.81, * 255.5/255
}

}  // namespace
}  // namespace spion
