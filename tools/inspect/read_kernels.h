// Kernel folders, as written by a training run and by `spion compile -o`.
#pragma once

#include <filesystem>
#include <vector>

#include "tools/inspect/facts.h"

namespace spion::inspect {

// Whether a folder holds kernel.ir, kernel.cu or kernel.ll.
bool is_kernel_folder(const std::filesystem::path& folder);

// Every kernel folder directly below `root` (or `root` itself when it is one), by name.
std::vector<KernelFacts> read_kernels(const std::filesystem::path& root);

// Name of the target in a kernel folder's report.json ("sm_90a"), or "".
std::string target_of(const std::filesystem::path& kernel_folder);

}  // namespace spion::inspect
