// Event files as a reader of TensorFlow's records sees them.
#include "train/event_file.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "ir/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/scratch_folder.h"
#include "tests/train/files.h"

namespace spion {
namespace {

template <typename T>
T number_at(const std::string& bytes, std::size_t at) {
    T value;
    std::memcpy(&value, bytes.data() + at, sizeof value);
    return value;
}

// The events of a file, each held against its checksums.
std::vector<std::string> events_of(const std::filesystem::path& file) {
    const std::string bytes = read_file(file);
    std::vector<std::string> events;
    for (std::size_t at = 0; at < bytes.size();) {
        const auto size = number_at<std::uint64_t>(bytes, at);
        EXPECT_EQ(number_at<std::uint32_t>(bytes, at + 8), masked_crc32c(bytes.substr(at, 8)));
        events.push_back(bytes.substr(at + 12, size));
        EXPECT_EQ(number_at<std::uint32_t>(bytes, at + 12 + size), masked_crc32c(events.back()));
        at += 16 + size;
    }
    return events;
}

std::filesystem::path only_file(const std::filesystem::path& folder) {
    std::filesystem::path found;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        EXPECT_TRUE(found.empty());
        found = entry.path();
    }
    return found;
}

TEST(EventFile, ChecksumIsCrc32c) {
    // Of "123456789" it is 0xE3069283 (RFC 3720); rotated right by 15, plus the mask.
    EXPECT_EQ(masked_crc32c("123456789"),
              ((0xE3069283U >> 15) | (0xE3069283U << 17)) + 0xA282EAD8U);
}

TEST(EventFile, HoldsScalarsAsProtocolBuffers) {
    const ScratchFolder folder;
    {
        EventFile events(folder.file("tb"), 0);
        events.scalar("train/loss", 300, 1.5);
        events.flush();
    }
    const auto file = only_file(folder.file("tb"));
    EXPECT_EQ(file.filename().string().find("events.out.tfevents."), 0U);
    const auto events = events_of(file);
    ASSERT_EQ(events.size(), 3U);
    // wall_time: field 1, 8 bytes; file_version: field 3.
    EXPECT_EQ(events[0][0], '\x09');
    EXPECT_EQ(events[0].substr(9),
              "\x1a\x0d"
              "brain.Event:2");
    // step 300: field 2, varint ac 02; summary: field 5 of 19 bytes; value: field 1 of 17 bytes; tag:
    // field 1; simple_value: field 2, 4 bytes of 1.5F.
    EXPECT_EQ(events[2].substr(9), std::string("\x10\xac\x02\x2a\x13\x0a\x11\x0a\x0a"
                                               "train/loss"
                                               "\x15\0\0\xc0\x3f",
                                               24));
}

// A run that goes on tells TensorBoard from which step on it says everything anew. One that begins does
// too: TensorBoard's server takes the first session for the beginning and forgets nothing for it.
TEST(EventFile, BeginsASessionWhenARunGoesOn) {
    const ScratchFolder folder;
    { EventFile first(folder.path(), 0); }
    const std::filesystem::path earlier = only_file(folder.path());
    ASSERT_EQ(events_of(earlier).size(), 2U);
    EXPECT_EQ(events_of(earlier)[1].substr(9), "\x10\x01\x3a\x02\x08\x01");  // from step 1 on
    { EventFile second(folder.path(), 20); }
    std::filesystem::path later;
    for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
        if (entry.path() != earlier) later = entry.path();
    }
    EXPECT_LT(earlier, later) << "they are read in the order of their names";
    const auto events = events_of(later);
    ASSERT_EQ(events.size(), 2U);
    EXPECT_EQ(events[1].substr(9), "\x10\x15\x3a\x02\x08\x01");  // step 21, session_log: START
    { EventFile anew(folder.path(), 0); }
    EXPECT_EQ(events_of(only_file(folder.path())).size(), 2U);
}

TEST(EventFile, SaysWhatCannotBeWritten) {
    const ScratchFolder folder;
    folder.write("file", "x");
    expect_error<UserError>([&] { EventFile(folder.file("file/tb"), 0); }, "cannot write ");
}

}  // namespace
}  // namespace spion
