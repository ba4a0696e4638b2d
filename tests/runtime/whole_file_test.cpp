// What is read of files that others may have written.
#include "runtime/whole_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdint>

#include "tests/support/scratch_folder.h"

namespace spion {
namespace {

TEST(WholeFile, IsReadUpToItsLimit) {
    const ScratchFolder folder;
    const std::string text(3000, 'x');
    const std::string file = folder.write("text", text);
    EXPECT_EQ(read_whole_file(file, 3000), text);
    EXPECT_EQ(read_whole_file(folder.write("empty", ""), 0), "");
    std::string problem;
    EXPECT_EQ(read_whole_file(file, 2999, &problem), std::nullopt);
    EXPECT_EQ(problem, "has more than 0 MiB");
    const std::string large(std::size_t{3} << 20, 'y');
    EXPECT_EQ(read_whole_file(folder.write("large", large), kLargestKeptText), large);
    EXPECT_EQ(read_whole_file(folder.file("large"), (std::size_t{3} << 20) - 1, &problem),
              std::nullopt);
    EXPECT_EQ(problem, "has more than 2 MiB");
}

// A pipe would never end, nor would a device.
TEST(WholeFile, IsARegularFile) {
    const ScratchFolder folder;
    std::string problem;
    EXPECT_EQ(read_whole_file(folder.path(), 10, &problem), std::nullopt);
    EXPECT_EQ(problem, "is no regular file");
    ASSERT_EQ(mkfifo(folder.file("pipe").c_str(), 0600), 0);
    EXPECT_EQ(read_whole_file(folder.file("pipe"), 10, &problem), std::nullopt);
    EXPECT_EQ(problem, "is no regular file");
    EXPECT_EQ(read_whole_file("/dev/zero", 10), std::nullopt);
    EXPECT_EQ(read_whole_file(folder.file("none"), 10, &problem), std::nullopt);
    EXPECT_EQ(problem, "is not there");
    EXPECT_EQ(read_whole_file("/proc/self/statm", 4096).value_or("").back(), '\n');
}

TEST(WholeFile, NumbersFitTheirType) {
    const auto number = [](const char* text) { return nlohmann::json::parse(text); };
    EXPECT_EQ(whole_number<int>(number("-2147483648")), INT32_MIN);
    EXPECT_EQ(whole_number<int>(number("2147483648")), std::nullopt);
    EXPECT_EQ(whole_number<std::uint64_t>(number("18446744073709551615")), UINT64_MAX);
    EXPECT_EQ(whole_number<std::int64_t>(number("18446744073709551615")), std::nullopt);
    EXPECT_EQ(whole_number<std::size_t>(number("-1")), std::nullopt);
    for (const char* other : {"1.0", "1e300", "\"1\"", "true", "null", "[1]"}) {
        EXPECT_EQ(whole_number<int>(number(other)), std::nullopt) << other;
    }
}

}  // namespace
}  // namespace spion
