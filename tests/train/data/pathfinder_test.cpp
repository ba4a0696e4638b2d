// Pathfinder's generator, and the folders of Long Range Arena.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <iterator>

#include "ir/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/scratch_folder.h"
#include "train/data/pathfinder_generator.h"
#include "train/task.h"

namespace spion {
namespace {

// Held against 400 pictures of the authors' code (distractors: of 150): how many retries, distractors and
// pixels of each brightness they have. Tolerances are some four standard errors of both sides.
TEST(PathfinderGenerator, HasTheStatisticsOfTheOriginal) {
    constexpr int kPictures = 400;
    constexpr std::array<int, 7> kBrightest = {0, 7, 63, 127, 191, 249, 255};
    constexpr std::array<double, 7> kShares = {65.5, 18.0, 3.9, 4.1, 6.7, 1.6, 0.3};  // per cent
    constexpr std::array<double, 7> kTolerances = {3, 2, 0.7, 0.9, 0.8, 0.3, 0.2};
    std::array<int, 7> found{};
    double ones = 0, distractors = 0, reach = 0, restarts = 0, sum = 0, squares = 0, bright = 0;
    for (int i = 0; i < kPictures; ++i) {
        const PathfinderPicture picture = generate_pathfinder(7, 0, i);
        ones += picture.label;
        reach += picture.reach;
        restarts += picture.restarts;
        EXPECT_LE(picture.distractors, 5);
        distractors += picture.distractors;
        for (const int pixel : picture.pixels) {
            sum += pixel;
            squares += pixel * pixel;
            bright += pixel > 100 ? 1 : 0;
            ++found[static_cast<std::size_t>(
                std::lower_bound(kBrightest.begin(), kBrightest.end(), pixel) -
                kBrightest.begin())];
        }
        EXPECT_EQ(*std::max_element(std::begin(picture.pixels), std::end(picture.pixels)), 255);
    }
    constexpr double kPixels = 1024.0 * kPictures;
    const double mean = sum / kPixels;
    EXPECT_NEAR(ones / kPictures, 0.485, 0.1);
    EXPECT_NEAR(reach / kPictures, 13.3, 0.8);
    EXPECT_NEAR(restarts / kPictures, 319, 100);
    EXPECT_NEAR(distractors / kPictures, 1.25, 0.4);
    EXPECT_NEAR(mean, 20.4, 1.5);
    EXPECT_NEAR(std::sqrt(squares / kPixels - mean * mean), 51.2, 1.5);
    EXPECT_NEAR(100 * bright / kPixels, 10.3, 0.7);
    for (std::size_t i = 0; i < kShares.size(); ++i) {
        EXPECT_NEAR(100 * found[i] / kPixels, kShares[i], kTolerances[i])
            << "up to " << kBrightest[i];
    }
}

TEST(PathfinderGenerator, IsAFunctionOfSeedSplitAndIndex) {
    const PictureSamples one = generate_pathfinder_split(3, 0, 40, 1);
    const PictureSamples three = generate_pathfinder_split(3, 0, 40, 3);
    EXPECT_EQ(one.pixels, three.pixels);
    EXPECT_EQ(one.labels, three.labels);
    EXPECT_NE(generate_pathfinder_split(4, 0, 40, 2).pixels, one.pixels);
    EXPECT_NE(generate_pathfinder_split(3, 1, 40, 2).pixels, one.pixels);
}

#ifdef SPION_PNG
// A grey PNG of 2 x 2 pixels: 0, 100, 200, 255.
const unsigned char kPng[] = {
    0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A, 0x00, 0x00, 0x00, 0x0D, 0x49, 0x48, 0x44,
    0x52, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x02, 0x08, 0x00, 0x00, 0x00, 0x00, 0x57,
    0xDD, 0x52, 0xF8, 0x00, 0x00, 0x00, 0x0E, 0x49, 0x44, 0x41, 0x54, 0x78, 0x9C, 0x63, 0x60,
    0x48, 0x61, 0x38, 0xF1, 0x1F, 0x00, 0x04, 0x25, 0x02, 0x2C, 0xC6, 0x0F, 0xBA, 0x21, 0x00,
    0x00, 0x00, 0x00, 0x49, 0x45, 0x4E, 0x44, 0xAE, 0x42, 0x60, 0x82};

TEST(PathfinderTask, ReadsTheFoldersInTheOrderOfTheirNumbers) {
    const ScratchFolder folder;
    std::filesystem::create_directories(folder.file("level/metadata"));
    const std::string png(reinterpret_cast<const char*>(kPng), sizeof kPng);
    for (const int n : {2, 10}) {
        std::filesystem::create_directories(folder.file(fmt::format("level/imgs/{}", n)));
        std::string metadata;
        for (int k = 0; k < 10; ++k) {
            const bool empty = n == 2 && k == 3;  // the archive has such a file
            folder.write(fmt::format("level/imgs/{}/sample_{}.png", n, k), empty ? "" : png);
            metadata += fmt::format("imgs/{} sample_{}.png {} {} 1.0 14 4 2 0.5 1 1\n", n, k, k,
                                    n == 2 ? 1 : 0);
        }
        folder.write(fmt::format("level/metadata/{}.npy", n), metadata);
    }
    TrainSettings settings = preset_settings("paper", "pathfinder");
    settings.data = folder.file("level");
    std::string said;
    const TaskData data =
        task_named("pathfinder").load(settings, [&](std::string_view text) { said += text; });
    EXPECT_NE(said.find("1 empty pictures are left out"), std::string::npos) << said;
    EXPECT_EQ(data.validation->samples(), 1);
    EXPECT_EQ(data.test->samples(), 1);
    ASSERT_EQ(data.train->samples(), 17);
    std::vector<std::uint16_t> tokens;
    data.train->read(0, 0, tokens);
    EXPECT_EQ(tokens, (std::vector<std::uint16_t>{0, 100, 200, 255}));
    EXPECT_EQ(data.train->label(0), 1) << "folder 2 comes before folder 10";
    EXPECT_EQ(data.train->label(16), 0);
}
#endif

TEST(PathfinderTask, RefusesWhatIsNotItsFolder) {
    const ScratchFolder folder;
    TrainSettings settings = preset_settings("paper", "pathfinder");
    settings.data = folder.path().string();
    const auto load = [&] { task_named("pathfinder").load(settings, [](std::string_view) {}); };
    expect_error<UserError>(load, "has no folder metadata");
    std::filesystem::create_directories(folder.file("curv_contour_length_14/metadata"));
    expect_error<UserError>(load, "lists no pictures");
    folder.write("curv_contour_length_14/metadata/1.npy", "imgs/1 sample_0.png 0 2 1.0 14\n");
    expect_error<UserError>(load,
                            "metadata/1.npy:1: 'imgs/1 sample_0.png 0 2 1.0 14' is not folder");
    folder.write("curv_contour_length_14/metadata/1.npy", "\x93NUMPY\x01");
    expect_error<UserError>(load, "is an array of NumPy's");
    folder.write("curv_contour_length_14/metadata/1.npy", "imgs/1 sample_0.png 0 1 1.0 14\n");
    expect_error<UserError>(load, "sample_0.png");
    folder.write("curv_contour_length_14/metadata/1.npy", "\n \r\n");
    expect_error<UserError>(load, "lists no pictures");
    std::filesystem::create_directories(folder.file("curv_contour_length_14/metadata/2.npy"));
    expect_error<UserError>(load, "metadata/2.npy");
    settings.data.clear();
    settings.length = 1000;
    expect_error<UserError>([&] { check(settings); }, "generated pictures have 1024 pixels");
}

}  // namespace
}  // namespace spion
