// The kernels' text, embedded into the library at build time (kernels/CMakeLists.txt).
#pragma once

#include <span>
#include <string_view>

namespace spion {

struct EmbeddedFile {
    std::string_view name;  // "attention_forward.cuh"; "attention_forward.bc" for host bodies
    std::string_view text;
};

// Every embedded file, sorted by name.
std::span<const EmbeddedFile> embedded_files();
// Null when there is none of that name.
const EmbeddedFile* find_embedded(std::string_view name);

}  // namespace spion
