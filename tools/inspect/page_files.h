// page.css and page.js, embedded at build time (tools/CMakeLists.txt).
#pragma once

#include <span>
#include <string_view>

namespace spion::inspect {

struct EmbeddedFile {
    std::string_view name;  // "page.css"
    std::string_view text;
};

// Every embedded file, sorted by name.
std::span<const EmbeddedFile> embedded_files();
// Null when there is none of that name.
const EmbeddedFile* find_embedded(std::string_view name);

}  // namespace spion::inspect
