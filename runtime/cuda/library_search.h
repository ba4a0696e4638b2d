// Where libraries of the CUDA toolkit lie on a machine: in toolkits, conda environments and Python's
// packages, PyTorch's own among them. Nothing is opened here.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace spion {

// What is sought.
struct LibraryNames {
    const char* variable;                 // names a file that is taken instead of what is found
    std::string_view start;               // of its files' names
    std::vector<std::string> for_loader;  // names that the loader may find
};
LibraryNames nvrtc_names();
LibraryNames cublas_names();
LibraryNames nccl_names();

// The value of an environment variable; nullopt where it is unset or empty.
using Variables = std::function<std::optional<std::string>(const char* name)>;

// Files and names to give to the loader, in this order: what the variable names, alone, where it is
// set; else the names as the loader finds them; files in lib64 of $CUDA_HOME, of $CUDA_PATH and of
// every usr/local/cuda*; in $CONDA_PREFIX/lib; in Python's packages nvidia/*/lib and torch/lib below
// $VIRTUAL_ENV, $CONDA_PREFIX, $HOME/.local, usr/local and usr. root: "/", or a test's folder. A
// file that has several names is listed once.
std::vector<std::string> library_candidates(const LibraryNames& names, const Variables& variable,
                                            const std::filesystem::path& root);

}  // namespace spion
