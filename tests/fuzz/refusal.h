// How fuzz targets hold a refusal against the rules for errors, and what they put into files.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

namespace spion {

// "" for a sentence of one line, else what is wrong with it.
inline std::string refused_well(const std::exception& error) {
    const std::string_view message = error.what();
    return message.size() > 10 && message.find('\n') == std::string_view::npos
               ? ""
               : "refused without a sentence: " + std::string(message);
}

// Ends the process, as libFuzzer wants it, unless `broken` is empty.
inline void require_whole(const std::string& broken) {
    if (broken.empty()) return;
    std::fprintf(stderr, "%s\n", broken.c_str());
    std::abort();
}

inline std::string_view text_of(const std::uint8_t* data, std::size_t size) {
    return {reinterpret_cast<const char*>(data), size};
}

// A folder in memory, where files cost little: readers take files.
class FuzzFolder {
  public:
    FuzzFolder() : path_(memory() / ("spion-fuzz-" + std::to_string(getpid()))) {
        std::filesystem::remove_all(path_);
        std::filesystem::create_directories(path_);
    }
    ~FuzzFolder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    FuzzFolder(const FuzzFolder&) = delete;
    FuzzFolder& operator=(const FuzzFolder&) = delete;

    const std::filesystem::path& path() const { return path_; }
    std::filesystem::path write(const std::string& name, std::string_view bytes) const {
        const std::filesystem::path file = path_ / name;
        std::filesystem::create_directories(file.parent_path());
        std::ofstream(file, std::ios::binary)
            .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
        return file;
    }

  private:
    static std::filesystem::path memory() {
        const std::filesystem::path shared = "/dev/shm";
        return std::filesystem::is_directory(shared) ? shared
                                                     : std::filesystem::temp_directory_path();
    }

    std::filesystem::path path_;
};

}  // namespace spion
