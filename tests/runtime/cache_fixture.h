// A kernel to cache, and lookups with a compile function that counts its calls.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "runtime/cache.h"
#include "tests/support/scratch_folder.h"

namespace spion {

namespace fs = std::filesystem;

inline CompileRequest some_request() {
    return {.entry = "attention_forward",
            .text = "constexpr int kBlock = 64;\n",
            .includes = {{"body.cuh", "body"}, {"parts/math.cuh", "math"}},
            .arch = "sm_90a",
            .features = "+avx2",
            .options = {"-std=c++20", "-Xptxas", "-v"},
            .compiler = "nvrtc 13.0"};
}

inline KernelSource some_source() {
    const CompileRequest request = some_request();
    return {.name = "attention_forward-b64/D32",
            .entry = request.entry,
            .text = request.text,
            .includes = request.includes,
            .ir = "attention H=2\n"};
}

// A different binary for every request, zero bytes included.
inline KernelBinary compiled(const CompileRequest& request) {
    return {.code = std::string("\177ELF\0\1", 6) + request.text,
            .log = "ptxas info : Used 40 registers \xff",
            .registers = 40,
            .static_shared_bytes = 128,
            .spill_bytes = 4,
            .compile_ms = 1.5};
}

inline std::string contents(const fs::path& path) {
    std::ostringstream text;
    text << std::ifstream(path, std::ios::binary).rdbuf();
    return text.str();
}

inline void overwrite(const fs::path& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

inline std::size_t entries(const fs::path& root) {
    return static_cast<std::size_t>(
        std::distance(fs::directory_iterator(root), fs::directory_iterator()));
}

// One lookup by a cache of its own, as a new process would do it.
inline CachedKernel look_up(const fs::path& root, int* compilations,
                            const CompileRequest& request = some_request()) {
    KernelCache cache(root);
    return cache.get(some_source(), request, [&](const CompileRequest& seen) {
        EXPECT_EQ(cache_key(seen), cache_key(request));
        ++*compilations;
        return compiled(seen);
    });
}

}  // namespace spion
