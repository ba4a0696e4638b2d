#include "io/bytes.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "ir/error.h"

namespace spion {
namespace {

// A mapped file that shrinks while it is read ends the process, so small ones are copied.
constexpr std::size_t kSmallestMapped = std::size_t{64} << 20;

// An open file, closed at the end; standard input stays open.
class Descriptor {
  public:
    explicit Descriptor(const std::string& path)
        : fd_(path == "-" ? STDIN_FILENO : open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
    ~Descriptor() {
        if (fd_ > STDIN_FILENO) {
            close(fd_);
        }
    }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    int get() const { return fd_; }

  private:
    int fd_;
};

std::string name_of(const std::string& path) {
    return path == "-" ? "standard input" : path;
}

[[noreturn]] void fail(const std::string& path, int reason) {
    throw UserError("{} cannot be read ({}): name a file that can", name_of(path),
                    std::strerror(reason));
}

Bytes map(int file, std::size_t size, const std::string& path) {
    void* begin = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
    if (begin == MAP_FAILED) {
        fail(path, errno);
    }
    const auto unmap = [size](const void* start) { munmap(const_cast<void*>(start), size); };
    return {.view = {static_cast<const char*>(begin), size},
            .owner = std::shared_ptr<const void>(begin, unmap)};
}

std::string read_all(int file, const std::string& path) {
    std::string text;
    constexpr std::size_t kFirst = std::size_t{64} << 10;
    std::size_t used = 0;
    while (true) {
        if (used == text.size()) {
            text.resize(text.empty() ? kFirst : 2 * text.size());
        }
        const ssize_t got = read(file, text.data() + used, text.size() - used);
        if (got < 0 && errno != EINTR) {
            fail(path, errno);
        }
        if (got == 0) {
            break;
        }
        used += got < 0 ? 0 : static_cast<std::size_t>(got);
        if (used > kLargestInMemory) {
            throw UserError(
                "{} holds more than {} bytes, which is not read from a pipe: name a "
                "file, which is mapped",
                name_of(path), kLargestInMemory);
        }
    }
    text.resize(used);
    return text;
}

}  // namespace

Bytes own(std::string text) {
    const auto kept = std::make_shared<const std::string>(std::move(text));
    return {.view = *kept, .owner = kept};
}

Bytes read_bytes(const std::string& path) {
    const Descriptor file(path);
    struct stat facts = {};
    if (file.get() < 0 || fstat(file.get(), &facts) != 0) {
        fail(path, errno);
    }
    if (S_ISDIR(facts.st_mode)) {
        throw UserError("{} is a folder: name a file", name_of(path));
    }
    const auto size = static_cast<std::size_t>(facts.st_size);
    const bool mapped = S_ISREG(facts.st_mode) && size >= kSmallestMapped && path != "-";
    Bytes bytes = mapped ? map(file.get(), size, path) : own(read_all(file.get(), path));
    if (bytes.view.empty()) {
        throw UserError("{} is empty: name a file that holds something", name_of(path));
    }
    return bytes;
}

std::string_view without_bom(std::string_view text) {
    constexpr std::string_view kMark = "\xEF\xBB\xBF";
    return text.starts_with(kMark) ? text.substr(kMark.size()) : text;
}

}  // namespace spion
