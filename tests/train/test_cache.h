// Where the tests of train/ keep compiled kernels.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <optional>

namespace spion {

// Kernels compiled by one test serve the others, and the user's own cache is left alone.
inline std::optional<std::filesystem::path> test_cache_root() {
    return std::filesystem::path(testing::TempDir()) / "spion-train-test-cache";
}

}  // namespace spion
