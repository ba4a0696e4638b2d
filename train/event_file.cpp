#include "train/event_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <chrono>
#include <system_error>

#include "ir/error.h"

namespace spion {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::uint32_t, 256> kTable = [] {
    constexpr std::uint32_t kPolynomial = 0x82F63B78;  // CRC-32C, reflected
    std::array<std::uint32_t, 256> table{};
    for (std::uint32_t i = 0; i < table.size(); ++i) {
        std::uint32_t value = i;
        for (int bit = 0; bit < 8; ++bit) {
            value = (value & 1U) != 0 ? value >> 1 ^ kPolynomial : value >> 1;
        }
        table[i] = value;
    }
    return table;
}();

template <typename T>
std::string little_endian(T value) {
    return {reinterpret_cast<const char*>(&value), sizeof value};  // as this machine is
}

// Protocol buffers: a field is its number and wire type, then the value.
std::string varint(std::uint64_t value) {
    std::string bytes;
    for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
    return bytes + static_cast<char>(value);
}
std::string field(int number, std::uint64_t value) {
    return varint(static_cast<std::uint64_t>(number) << 3) + varint(value);
}
std::string field(int number, double value) {
    return varint(static_cast<std::uint64_t>(number) << 3 | 1) + little_endian(value);
}
std::string field(int number, float value) {
    return varint(static_cast<std::uint64_t>(number) << 3 | 5) + little_endian(value);
}
std::string field(int number, std::string_view bytes) {
    return varint(static_cast<std::uint64_t>(number) << 3 | 2) + varint(bytes.size()) +
           std::string(bytes);
}

// Event's fields: 1 wall_time, 2 step, 3 file_version, 5 summary, 7 session_log.
std::string event(std::int64_t step) {
    const double now =
        std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
    std::string bytes = field(1, now);
    if (step != 0) bytes += field(2, static_cast<std::uint64_t>(step));
    return bytes;
}

// Of a run that begins anew: nothing of its earlier files holds any more, and TensorBoard's page
// would go on to show it, session or not.
void remove_earlier(const fs::path& folder) {
    std::error_code error;
    for (fs::directory_iterator item(folder, error), end; !error && item != end;
         item.increment(error)) {
        const std::string name = item->path().filename().string();
        if (name.starts_with("events.out.tfevents.") && name.ends_with(".spion")) {
            std::error_code ignored;
            fs::remove(item->path(), ignored);
        }
    }
}

fs::path new_file(const fs::path& folder, std::int64_t first_step) {
    std::error_code error;
    fs::create_directories(folder, error);
    if (first_step == 0) remove_earlier(folder);
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(
                             std::chrono::system_clock::now().time_since_epoch())
                             .count();
    // TensorBoard reads the files of a folder in the order of their names, so those of one second are
    // told apart by a number that grows.
    for (int n = 0;; ++n) {
        const fs::path file =
            folder / fmt::format("events.out.tfevents.{}.{:04}.spion", seconds, n);
        if (!fs::exists(file, error)) return file;
    }
}

[[noreturn]] void fail(const fs::path& file, const std::system_error& error) {
    throw UserError("cannot write {}: {}; free some space, or leave --tensorboard away",
                    file.string(), error.code().message());
}

OutputFile open_new(const fs::path& file) {
    try {
        return {file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666};
    } catch (const std::system_error& error) {
        fail(file, error);
    }
}

}  // namespace

std::uint32_t masked_crc32c(std::string_view bytes) {
    std::uint32_t crc = 0xFFFFFFFF;
    for (const char byte : bytes) {
        crc = kTable[(crc ^ static_cast<unsigned char>(byte)) & 0xFF] ^ crc >> 8;
    }
    constexpr std::uint32_t kMask = 0xA282EAD8;
    return std::rotr(~crc, 15) + kMask;
}

EventFile::EventFile(const fs::path& folder, std::int64_t first_step)
    : output_(open_new(new_file(folder, first_step))) {
    record(event(0) + field(3, "brain.Event:2"));
    // A session's start: TensorBoard forgets what it has from this step on (SessionLog's field 1 is
    // its status, START is 1). Its server takes the first that it sees for the run's own beginning
    // and acts on the later ones alone, so a run that begins has one too.
    record(event(first_step + 1) + field(7, field(1, std::uint64_t{1})));
    flush();
}

void EventFile::record(std::string_view bytes) {
    const std::string length = little_endian(static_cast<std::uint64_t>(bytes.size()));
    pending_ += length;
    pending_ += little_endian(masked_crc32c(length));
    pending_ += bytes;
    pending_ += little_endian(masked_crc32c(bytes));
}

// Summary's field 1 is a value; of that, 1 is the tag and 2 the number.
void EventFile::scalar(std::string_view tag, std::int64_t step, double value) {
    const std::string one = field(1, tag) + field(2, static_cast<float>(value));
    record(event(step) + field(5, field(1, std::string_view(one))));
}

void EventFile::flush() {
    try {
        output_.append(pending_);
    } catch (const std::system_error& error) {
        fail(output_.path(), error);
    }
    pending_.clear();
}

}  // namespace spion
