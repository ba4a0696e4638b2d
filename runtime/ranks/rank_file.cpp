#include "runtime/ranks/rank_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <random>
#include <system_error>

#include "ir/error.h"
#include "ir/sha256.h"
#include "runtime/whole_file.h"

namespace spion {
namespace {

using nlohmann::json;

constexpr std::size_t kLargestRecord = 65536;  // bytes

OutputFile open_file(const std::filesystem::path& file) {
    try {
        // Read by others on other machines while it is open here, so never replaced by a new one.
        return {file, O_RDWR | O_CREAT | O_CLOEXEC, 0666};
    } catch (const std::system_error& error) {
        throw DeviceError("{} cannot be made: {}; all processes must be able to write there",
                          file.string(), error.code().message());
    }
}

}  // namespace

RankFile::RankFile(const std::filesystem::path& file) : file_(open_file(file)) {
    if (::flock(file_.descriptor(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        throw UserError(
            "another process that is still running has {}: end it, or give each process a rank of "
            "its own",
            file.string());
    }
}

// "DIGEST\nRECORD": a reader takes what fits its digest, so half a record is none.
void RankFile::write(const RankRecord& r) {
    const std::string body =
        json{{"token", r.token}, {"beats", r.beats}, {"state", r.state},    {"seen", r.seen},
             {"host", r.host},   {"boot", r.boot},   {"message", r.message}}
            .dump(-1, ' ', true, json::error_handler_t::replace);
    const std::string text = digest_of(body) + '\n' + body;
    const auto size = static_cast<ssize_t>(text.size());
    if (::pwrite(file_.descriptor(), text.data(), text.size(), 0) != size ||
        ::ftruncate(file_.descriptor(), size) != 0) {
        const int error = errno;
        throw DeviceError("{} cannot be written: {}; free some space there", file_.path().string(),
                          std::generic_category().message(error));
    }
}

std::optional<RankRecord> read_rank_file(const std::filesystem::path& file) {
    const auto text = read_whole_file(file, kLargestRecord);
    const std::size_t line = text ? text->find('\n') : std::string::npos;
    if (line == std::string::npos) return std::nullopt;
    const std::string body = text->substr(line + 1);
    if (text->substr(0, line) != digest_of(body)) return std::nullopt;
    const json record = json::parse(body, nullptr, false);
    try {
        return RankRecord{.token = record.at("token"),
                          .beats = record.at("beats"),
                          .state = record.at("state"),
                          .seen = record.at("seen"),
                          .host = record.at("host"),
                          .boot = record.at("boot"),
                          .message = record.at("message")};
    } catch (const json::exception&) {
        return std::nullopt;
    }
}

bool owner_has_ended(const std::filesystem::path& file) {
    const int descriptor = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return false;
    const bool ended = ::flock(descriptor, LOCK_SH | LOCK_NB) == 0;
    ::close(descriptor);  // and with it the lock
    return ended;
}

std::string fresh_token() {
    std::random_device random;
    return fmt::format("{:08x}{:08x}", random(), random());
}

std::string host_name() {
    char name[256] = "";
    if (::gethostname(name, sizeof(name) - 1) != 0) return "an unnamed machine";
    return name;
}

std::string boot_name() {
    const auto text = read_whole_file("/proc/sys/kernel/random/boot_id", kLargestRecord);
    return text ? text->substr(0, text->find('\n')) : std::string();
}

}  // namespace spion
