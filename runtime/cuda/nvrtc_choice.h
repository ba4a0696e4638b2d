// Which NVRTC is taken where a machine has several (runtime/cuda/library_search.h). Facts in, a
// choice out, so that it is tested without any of them.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "ir/nvrtc_rules.h"
#include "ir/target.h"

namespace spion {

// A library that was opened.
struct FoundNvrtc {
    std::string path;
    CompilerRelease release;
    std::vector<int> capabilities;  // compute capabilities that it compiles for: 80, 90, ..
};

struct NvrtcChoice {
    std::optional<std::size_t> taken;  // index of what was found
    std::string problem;               // why none is, in a sentence with the remedy; empty: one is
    std::string driver_problem;        // why this machine's GPU cannot run its kernels, or empty
};

// The newest that knows `capability` (0: any), of those whose kernels the driver loads if there is
// one: a driver for CUDA 12.x loads what any 12.y has made, and nothing of 13. Of equals the first.
// driver: the CUDA release it is made for; nullopt where there is none.
NvrtcChoice choose_nvrtc(const std::vector<FoundNvrtc>& found, int capability,
                         const std::optional<CompilerRelease>& driver);

// What mends a missing or unfit NVRTC, as the end of a sentence.
std::string nvrtc_remedy(const CompilerRelease& oldest = kOldestNvrtc);

}  // namespace spion
