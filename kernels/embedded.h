// The kernels' text, embedded into the library at build time (kernels/CMakeLists.txt).
#pragma once

#include <span>
#include <string_view>

namespace spion {

struct EmbeddedFile {
    // As #include names it, a path from the root: "kernels/cuda/sm80/attention_forward.cuh". A host
    // body's bitcode has its path below kernels/host: "attention_forward.bc", "train/adamw.bc".
    std::string_view name;
    std::string_view text;
};

// Every embedded file, sorted by name.
std::span<const EmbeddedFile> embedded_files();
// Null when there is none of that name.
const EmbeddedFile* find_embedded(std::string_view name);

}  // namespace spion
