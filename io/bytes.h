// What a file, a pipe or an archive's member holds, whatever it means.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace spion {

// What is read into memory whole: a pipe, standard input, a member that is unpacked. Files are
// mapped instead when they are large and have no such limit.
constexpr std::size_t kLargestInMemory = std::size_t{4} << 30;

// Bytes and whoever keeps them alive.
struct Bytes {
    std::string_view view;
    std::shared_ptr<const void> owner;
};

// The whole of a file, or of standard input for "-". Throws UserError that names the file when it
// is a folder, empty, unreadable or, unless it can be mapped, above kLargestInMemory.
Bytes read_bytes(const std::string& path);

Bytes own(std::string text);

// Without the byte-order mark with which some editors begin UTF-8 text.
std::string_view without_bom(std::string_view text);

}  // namespace spion
