// Every file that we make gets its name when it is whole: it is written under another name beside
// it, synced, and renamed. Whatever ends the process or fills the disk meanwhile, an earlier file of
// that name stays as it was.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace spion {

// An open file. All throw std::system_error, whose what() names the file.
class OutputFile {
  public:
    // flags and mode as for open(2).
    OutputFile(std::filesystem::path path, int flags, unsigned mode);
    ~OutputFile();
    OutputFile(OutputFile&& other) noexcept;
    OutputFile& operator=(OutputFile&&) = delete;

    const std::filesystem::path& path() const { return path_; }
    void append(std::string_view bytes);
    // Takes back what was appended beyond `bytes`; never fails.
    void cut_to(std::int64_t bytes) noexcept;
    // Onto the disk. Where a pipe or a file system has no such thing, nothing happens.
    void sync();
    // Also the errors that a file system reports no earlier.
    void close();
    int descriptor() const { return descriptor_; }

  private:
    std::filesystem::path path_;
    int descriptor_;
};

class AtomicFile {
  public:
    // The folder of `path` exists. A link is followed; the mode of a file that is there is kept;
    // what is no regular file (/dev/stdout, a pipe) is written as it is. Throws std::system_error.
    explicit AtomicFile(const std::filesystem::path& path);
    ~AtomicFile();  // leaves nothing behind unless the file has its name
    AtomicFile(AtomicFile&& other) noexcept;
    AtomicFile& operator=(AtomicFile&&) = delete;

    void write(std::string_view bytes) { file_.append(bytes); }
    // Gives all of them their names, none before each is whole and synced.
    static void commit(std::span<AtomicFile> files);
    void commit() { commit({this, 1}); }

  private:
    struct Place;
    explicit AtomicFile(Place place);
    static Place place_of(const std::filesystem::path& path);

    std::filesystem::path target_;  // with links followed
    bool temporary_;                // the open file has another name
    OutputFile file_;
};

struct NamedBytes {
    std::filesystem::path path;
    std::string_view bytes;
};

// Makes the folders that whole files need, then the files. Throws UserError:
// "PATH cannot be written: REASON; `mend`".
void write_files(std::span<const NamedBytes> files, std::string_view mend);
// One file, in a folder that is there: a user's own path may be misspelt. Throws as above.
void write_file(const std::filesystem::path& path, std::string_view bytes, std::string_view mend);

// True for the name under which a file is written before it has its own: left behind only by a
// process that was killed.
bool is_unfinished(const std::filesystem::path& path);

// Names in `folder` onto the disk. Some file systems cannot (SMB, some of FUSE) and keep them
// nevertheless, which is no error. Throws std::system_error.
void sync_folder(const std::filesystem::path& folder);

}  // namespace spion
