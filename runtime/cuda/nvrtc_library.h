// The NVRTC libraries of this machine, opened when first needed, and the one that is taken.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "ir/target.h"
#include "runtime/cuda/nvrtc_abi.h"
#include "runtime/cuda/shared_library.h"

namespace spion {

struct NvrtcLibrary {
    SharedLibrary library;
    nvrtc_abi::Functions functions;
    CompilerRelease release;
    std::vector<int> capabilities;  // compute capabilities that it compiles for
};

// The one that makes kernels for `arch` ("sm_90a"; "": for any). Throws DeviceError that says why
// there is none and how to mend it.
const NvrtcLibrary& nvrtc_library(const std::string& arch);
// The same without the throw: the sentence, or nullopt.
std::optional<std::string> nvrtc_library_problem(const std::string& arch);
// Why this machine's driver does not load what nvrtc_library(arch) makes; nullopt when it does, or
// when there is no driver.
std::optional<std::string> nvrtc_driver_problem(const std::string& arch);
// For people: "13.0 at /usr/local/cuda/lib64/libnvrtc.so.13", everything that was found, in the
// order in which it was sought.
std::vector<std::string> nvrtc_libraries_found();

}  // namespace spion
