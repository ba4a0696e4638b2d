// The host's compile function: LLVM IR text and bitcode bodies -> a relocatable object.
//     text --parse--> module --link bodies--> --internalise, set CPU--> --O3--> --emit--> object
// Everything here is a pure function of the request, and thread-safe.
#pragma once

#include <string>

#include "ir/kernel_source.h"

namespace spion {

// Version of the LLVM library in use: "19.1.7".
std::string llvm_version();

// request.text: LLVM IR that defines the constants; request.includes: bitcode bodies that declare
// them (extern const bool, int or float) and define request.entry. arch and features are LLVM's
// names of CPU and features. options: at most one of "O0", "O1", "O2", "O3" (default O3).
// Throws InternalError, with LLVM's words, when the text or a body is rejected, a constant that the
// entry needs is missing or has another type, or anything but memcpy, memmove and memset is called.
KernelBinary compile_with_llvm(const CompileRequest& request);

// The same walk up to the optimised module, as LLVM IR text, and up to the CPU's assembly text: for
// the reader.
std::string optimised_ir(const CompileRequest& request);
std::string assembly(const CompileRequest& request);

// runtime/offline.h's line for a host kernel's folder.
std::string rebuild_with_llvm(const CompileRequest& request);

}  // namespace spion
