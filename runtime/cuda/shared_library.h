// A shared library that is opened when first needed and stays open until the process ends. NVIDIA's
// libraries come this way, so that the command starts, and says what is missing, without them.
#pragma once

#include <string>
#include <vector>

namespace spion {

class SharedLibrary {
  public:
    // Opens the first of `candidates` (file names for the loader to find, or paths) that can be.
    explicit SharedLibrary(const std::vector<std::string>& candidates);

    bool is_open() const { return handle_ != nullptr; }
    // The file that was opened, as the loader resolved it; empty when none was.
    const std::string& path() const { return path_; }
    // "libx.so.1 (not found), /opt/libx.so (wrong ELF class)": what was tried and why it failed.
    const std::string& failures() const { return failures_; }
    // What tells this build of the library from any other: the linker's build id, or the file's
    // size and time of change where there is none.
    std::string identity() const;
    // Null when the library has no such symbol.
    void* symbol(const char* name) const;

  private:
    void* handle_ = nullptr;
    std::string path_;
    std::string failures_;
};

}  // namespace spion
