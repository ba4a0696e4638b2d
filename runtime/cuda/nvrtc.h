// CUDA source -> cubin, through NVIDIA's run-time compiler. NVRTC needs no GPU and no driver.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "ir/kernel_source.h"
#include "ir/target.h"

namespace spion {

// Why NVRTC cannot be used on this machine and how to mend it; nullopt when it can.
std::optional<std::string> nvrtc_problem();

// "nvrtc 13.0 65be0db3...": release and what identifies the library's build, so that two builds of
// one release never share cached kernels. Throws DeviceError with nvrtc_problem()'s sentence.
std::string nvrtc_version();
// The release that it says it is. Throws as nvrtc_version().
CompilerRelease nvrtc_release();
// The file that was opened. Throws as nvrtc_version().
std::string nvrtc_path();

// Options for CompileRequest::options, the architecture excepted; with SPION_LINEINFO=1 in the
// environment, -lineinfo is one of them. Throws as nvrtc_version(), and UserError for another value
// of SPION_LINEINFO.
std::vector<std::string> nvrtc_options();

// Compiles request.text for request.arch with request.options in order; request.includes are found
// by their names in #include. Thread-safe, one program a call. A rejected source is an
// InternalError with the compiler's log and the folder where source and includes were kept.
// ptx: receives, unless null, the PTX that this very compilation assembled its cubin from; a real
// architecture has NVRTC keep it.
KernelBinary compile_with_nvrtc(const CompileRequest& request, std::string* ptx = nullptr);

// The line of `log` that says that ptxas serialises wgmma or ignores setmaxnreg, or "": such a
// kernel is right but far below its speed, and compile_with_nvrtc throws InternalError.
std::string serialised_products(const std::string& log);

// Registers, static shared memory and spills (the largest of any function) as `ptxas -v` reports
// them in `log`; fields that it does not mention stay 0.
void read_resources(const std::string& log, KernelBinary& binary);

}  // namespace spion
