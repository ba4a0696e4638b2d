// CUDA source -> cubin, through NVIDIA's run-time compiler. NVRTC needs no GPU and no driver.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "ir/kernel_source.h"
#include "ir/target.h"

namespace spion {

// `arch` is what is compiled for ("sm_90a"; "": anything): where a machine has several NVRTCs, the
// newest that knows it is taken (runtime/cuda/nvrtc_choice.h).

// Why none can be used on this machine and how to mend it; nullopt when one can.
std::optional<std::string> nvrtc_problem(const std::string& arch = {});

// "nvrtc 13.0 65be0db3...": release and what identifies the library's build, so that two builds of
// one release never share cached kernels. Throws DeviceError with nvrtc_problem()'s sentence.
std::string nvrtc_version(const std::string& arch = {});
// The release that it says it is. Throws as nvrtc_version().
CompilerRelease nvrtc_release(const std::string& arch = {});
// The file that was opened. Throws as nvrtc_version().
std::string nvrtc_path(const std::string& arch = {});

// Options for CompileRequest::options, the architecture excepted; with SPION_LINEINFO=1 in the
// environment, -lineinfo is one of them. Throws as nvrtc_version(), and UserError for another value
// of SPION_LINEINFO.
std::vector<std::string> nvrtc_options(const std::string& arch = {});

// Compiles request.text for request.arch with request.options in order; request.includes are found
// by their names in #include. Thread-safe, one program a call. Throws DeviceError as
// nvrtc_version(), when NVRTC has lost a part of itself, and when ptxas serialises wgmma or ignores
// setmaxnreg: such a kernel is right but far below its speed. A rejected source is an InternalError
// with the compiler's log and the file where it is kept, beside its includes: rejected/ below the
// cache folder, once for each source. ptx: receives, unless null, the PTX that this very
// compilation assembled its cubin from; a real architecture has NVRTC keep it.
KernelBinary compile_with_nvrtc(const CompileRequest& request, std::string* ptx = nullptr);

// The line of `log` that says that ptxas serialises wgmma or ignores setmaxnreg, or "". It goes by
// the words: the numbers before them differ between releases, and some of them are notes.
std::string performance_loss(const std::string& log);

// Registers, static shared memory and spills (the largest of any function) as `ptxas -v` reports
// them in `log`; fields that it does not mention stay 0.
void read_resources(const std::string& log, KernelBinary& binary);

}  // namespace spion
