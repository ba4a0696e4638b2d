// Compiling for a device that need not be here: a GPU nobody has plugged in, or this CPU.
//     KernelSource --request_for--> CompileRequest --compile_offline--> binary and its texts
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "ir/kernel_source.h"
#include "ir/target.h"

namespace spion {

// "sm_80", .., "sm_120", "host": what target_named() takes, in the order of age.
const std::vector<std::string>& target_names();

// sm_90 is sm_90a without the instructions that only the latter has; host is the CPU of this
// machine. A GPU's compiler is the NVRTC found here, and where there is none the newest. Throws
// UserError that lists the names, or says that this build lacks the back end.
Target target_named(std::string_view name);

// Options and version of the compiler that the target's device would use. Throws DeviceError when
// that compiler is not on this machine.
CompileRequest request_for(const KernelSource& source, const Target& target);

// The binary alone. Throws InternalError with the compiler's log when it rejects the source.
KernelBinary compile_binary(const CompileRequest& request, BackEnd back_end);

// A binary with the texts that lie between it and its source.
struct OfflineKernel {
    KernelBinary binary;
    std::string ptx;           // CUDA
    std::string optimised_ir;  // host: LLVM IR
    std::string assembly;      // host
};
// Throws InternalError with the compiler's log when it rejects the source.
OfflineKernel compile_offline(const CompileRequest& request, BackEnd back_end);

// For people, where the compiler has kept registers of the kernel in memory: such a kernel is right
// but slower than was planned. "" where it has not.
std::string spill_note(const CompileRequest& request, const KernelBinary& binary);

// One line for a shell in a kernel's folder that makes the kernel again, from its files alone:
//   CUDA  kernel.rebuilt.cubin, from kernel.cu and its includes with nvcc. nvcc's front end is not
//         NVRTC's: entry and results are the same, the order of instructions need not be.
//   host  kernel.rebuilt.o, from kernel.ll and the bitcode with LLVM's own tools of the release
//         that spion is built with: the same instructions.
// "" for a compiler that this build does not know.
std::string rebuild_command(const CompileRequest& request);
// The same for CUDA, of two fields of the request.
std::string rebuild_command(const std::string& arch, const std::vector<std::string>& options);
// The shell script rebuild.sh, which runs such a line in its own folder wherever it is called from
// and ends with the exit code of what failed; "" for "".
std::string rebuild_script(std::string_view command);

}  // namespace spion
