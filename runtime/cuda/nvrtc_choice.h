// Which NVRTC is taken where a machine has several: toolkits, Python packages, PyTorch's own. Facts
// in, a choice out, so that it is tested without any of them.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
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

// The value of an environment variable; nullopt where it is unset or empty.
using Variables = std::function<std::optional<std::string>(const char* name)>;

// Files and names to give to the loader, in this order: $SPION_NVRTC_LIBRARY alone where it is set;
// else libnvrtc as the loader finds it; in lib64 of $CUDA_HOME, of $CUDA_PATH and of every
// usr/local/cuda*; in $CONDA_PREFIX/lib; in Python's packages nvidia/*/lib and torch/lib below
// $VIRTUAL_ENV, $CONDA_PREFIX, $HOME/.local, usr/local and usr. root: "/", or a test's folder. A
// file that has several names is listed once.
std::vector<std::string> nvrtc_candidates(const Variables& variable,
                                          const std::filesystem::path& root);

}  // namespace spion
