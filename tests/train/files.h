// Reading back what a run has written.
#pragma once

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace spion {

inline std::string read_file(const std::filesystem::path& file) {
    std::ifstream input(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(input), {}};
}

}  // namespace spion
