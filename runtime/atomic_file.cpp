#include "runtime/atomic_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <set>
#include <system_error>
#include <utility>

#include "ir/error.h"

namespace spion {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kUnfinishedPrefix = ".spion-";
constexpr std::string_view kUnfinishedSuffix = ".unfinished";

[[noreturn]] void throw_error(int error, const fs::path& path) {
    throw std::system_error(error, std::generic_category(), path.string());
}

// What a file system answers that has no fsync for this kind of file.
bool cannot_sync(int error) {
    return error == EINVAL || error == ENOTSUP || error == EOPNOTSUPP || error == ENOSYS;
}

fs::path unfinished_name(const fs::path& folder) {
    static std::atomic<unsigned> count{0};
    return folder /
           fmt::format("{}{}-{}{}", kUnfinishedPrefix, getpid(), count++, kUnfinishedSuffix);
}

// A fresh file in `folder`. Its name may be taken by a process of another machine.
OutputFile open_unfinished(const fs::path& folder, unsigned mode) {
    for (int attempt = 0;; ++attempt) {
        constexpr int kAttempts = 1000;
        try {
            return {unfinished_name(folder), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode};
        } catch (const std::system_error& error) {
            if (error.code().value() != EEXIST || attempt == kAttempts) {
                throw;
            }
        }
    }
}

}  // namespace

OutputFile::OutputFile(fs::path path, int flags, unsigned mode)
    : path_(std::move(path)), descriptor_(open(path_.c_str(), flags, mode)) {
    if (descriptor_ < 0) {
        throw_error(errno, path_);
    }
}

OutputFile::~OutputFile() {
    if (descriptor_ >= 0) {
        ::close(descriptor_);
    }
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

void OutputFile::append(std::string_view bytes) {
    while (!bytes.empty()) {
        const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
        if (written < 0 && errno != EINTR) {
            throw_error(errno, path_);
        }
        bytes.remove_prefix(written < 0 ? 0 : static_cast<std::size_t>(written));
    }
}

void OutputFile::cut_to(std::int64_t bytes) noexcept {
    [[maybe_unused]] const bool cut =
        ftruncate(descriptor_, bytes) == 0 && lseek(descriptor_, bytes, SEEK_SET) == bytes;
}

void OutputFile::sync() {
    if (fsync(descriptor_) != 0 && !cannot_sync(errno)) {
        throw_error(errno, path_);
    }
}

void OutputFile::close() {
    if (::close(std::exchange(descriptor_, -1)) != 0 && errno != EINTR) {
        throw_error(errno, path_);
    }
}

// Where a file is written and what it becomes.
struct AtomicFile::Place {
    fs::path target;
    bool temporary;
    OutputFile file;
};

AtomicFile::Place AtomicFile::place_of(const fs::path& path) {
    struct stat found {};
    const bool exists = stat(path.c_str(), &found) == 0;
    if (!exists && errno != ENOENT) {
        throw_error(errno, path);
    }
    const std::string text = path.string();
    if (exists &&
        (!S_ISREG(found.st_mode) || text.starts_with("/dev/") || text.starts_with("/proc/"))) {
        return {path, false, OutputFile(path, O_WRONLY | O_TRUNC | O_CLOEXEC, 0)};
    }
    if (exists && access(path.c_str(), W_OK) != 0) {
        throw_error(errno, path);  // a rename would replace what its owner has locked
    }
    const fs::path target = exists ? fs::canonical(path) : path;
    const fs::path folder = target.has_parent_path() ? target.parent_path() : ".";
    try {
        Place place{target, true, open_unfinished(folder, 0666)};
        if (exists) {
            // Fails for a file of another owner, whom the mode is no help to then.
            [[maybe_unused]] const int kept =
                fchmod(place.file.descriptor(), found.st_mode & 07777U);
        }
        return place;
    } catch (const std::system_error& error) {
        throw_error(error.code().value(), path);  // the name that was asked for
    }
}

AtomicFile::AtomicFile(const fs::path& path) : AtomicFile(place_of(path)) {}

AtomicFile::AtomicFile(Place place)
    : target_(std::move(place.target)), temporary_(place.temporary), file_(std::move(place.file)) {}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : target_(std::move(other.target_)),
      temporary_(std::exchange(other.temporary_, false)),
      file_(std::move(other.file_)) {}

AtomicFile::~AtomicFile() {
    if (temporary_) {
        unlink(file_.path().c_str());
    }
}

void AtomicFile::commit(std::span<AtomicFile> files) {
    for (AtomicFile& file : files) {
        file.file_.sync();
    }
    for (AtomicFile& file : files) {
        file.file_.close();
    }
    std::set<fs::path> folders;
    for (AtomicFile& file : files) {
        if (!file.temporary_) {
            continue;
        }
        if (std::rename(file.file_.path().c_str(), file.target_.c_str()) != 0) {
            throw_error(errno, file.target_);
        }
        file.temporary_ = false;
        folders.insert(file.target_.has_parent_path() ? file.target_.parent_path() : ".");
    }
    std::for_each(folders.begin(), folders.end(), sync_folder);
}

namespace {

[[noreturn]] void fail(const fs::path& path, const std::error_code& error, std::string_view mend) {
    throw UserError("{} cannot be written: {}; {}", path.string(), error.message(), mend);
}

void write_into_folders(std::span<const NamedBytes> files, std::string_view mend) {
    const fs::path* current = nullptr;  // what an error is about
    try {
        std::vector<AtomicFile> open;
        open.reserve(files.size());
        for (const NamedBytes& file : files) {
            current = &file.path;
            open.emplace_back(file.path).write(file.bytes);
        }
        AtomicFile::commit(open);
    } catch (const std::system_error& error) {
        fail(current == nullptr ? fs::path() : *current, error.code(), mend);
    }
}

}  // namespace

void write_files(std::span<const NamedBytes> files, std::string_view mend) {
    for (const NamedBytes& file : files) {
        std::error_code error;
        if (file.path.has_parent_path() && !fs::is_directory(file.path.parent_path(), error) &&
            !fs::create_directories(file.path.parent_path(), error) && error) {
            fail(file.path, error, mend);
        }
    }
    write_into_folders(files, mend);
}

void write_file(const fs::path& path, std::string_view bytes, std::string_view mend) {
    const NamedBytes file{.path = path, .bytes = bytes};
    write_into_folders({&file, 1}, mend);
}

bool is_unfinished(const fs::path& path) {
    const std::string name = path.filename().string();
    return name.starts_with(kUnfinishedPrefix) && name.ends_with(kUnfinishedSuffix);
}

void sync_folder(const fs::path& folder) {
    const int descriptor = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) {
        if (errno == EACCES) {
            return;  // files may be made there, but nothing read
        }
        throw_error(errno, folder);
    }
    const int error = fsync(descriptor) == 0 ? 0 : errno;
    close(descriptor);
    if (error != 0 && !cannot_sync(error)) {
        throw_error(error, folder);
    }
}

}  // namespace spion
