// Which cuBLASLt is taken where a machine has several (runtime/cuda/library_search.h). Facts in, a
// choice out, so that it is tested without any of them.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "ir/target.h"

namespace spion {

// runtime/cuda/cublas_abi.h agrees with its header; of older ones nothing is known.
constexpr CompilerRelease kOldestCublas{.major = 12, .minor = 0};

// A library that was opened. Its releases are numbered as CUDA's are, up to the minor number.
struct FoundCublas {
    std::string path;
    CompilerRelease release;
};

struct CublasChoice {
    std::optional<std::size_t> taken;  // index of what was found
    std::string problem;               // why none is, in a sentence with the remedy; empty: one is
};

// The newest that runs on the driver if there is one: a driver for CUDA 12.x runs every 12.y, and
// nothing of 13. Of equals the first. driver: the CUDA release it is made for; nullopt where there is
// none.
CublasChoice choose_cublas(const std::vector<FoundCublas>& found,
                           const std::optional<CompilerRelease>& driver);

// What mends a missing or unfit cuBLASLt, as the end of a sentence.
std::string cublas_remedy();

}  // namespace spion
