// The part of NVRTC's binary interface that is used, declared here because the toolkit's headers
// may be absent where spion is built. tests/runtime/cuda_abi_test.cpp holds it against those
// headers.
#pragma once

#include <cstddef>

#include "runtime/cuda/function_table.h"

namespace spion::nvrtc_abi {

using Result = int;
using Program = struct ProgramHandle*;

constexpr Result kSuccess = 0;
constexpr Result kErrorInvalidOption = 5;
constexpr Result kErrorCompilation = 6;
constexpr Result kErrorBuiltinOperation = 7;  // libnvrtc-builtins.so cannot be opened

// X(name, return and parameter types)
#define SPION_NVRTC_FUNCTIONS(X)                                                             \
    X(nvrtcGetErrorString, const char*(Result))                                              \
    X(nvrtcVersion, Result(int* major, int* minor))                                          \
    X(nvrtcGetNumSupportedArchs, Result(int*))                                               \
    X(nvrtcGetSupportedArchs, Result(int*))                                                  \
    X(nvrtcCreateProgram, Result(Program*, const char* text, const char* name, int headers,  \
                                 const char* const* header_texts, const char* const* names)) \
    X(nvrtcDestroyProgram, Result(Program*))                                                 \
    X(nvrtcCompileProgram, Result(Program, int count, const char* const* options))           \
    X(nvrtcGetCUBINSize, Result(Program, std::size_t*))                                      \
    X(nvrtcGetCUBIN, Result(Program, char*))                                                 \
    X(nvrtcGetPTXSize, Result(Program, std::size_t*))                                        \
    X(nvrtcGetPTX, Result(Program, char*))                                                   \
    X(nvrtcGetProgramLogSize, Result(Program, std::size_t*))                                 \
    X(nvrtcGetProgramLog, Result(Program, char*))

SPION_FUNCTION_TABLE(SPION_NVRTC_FUNCTIONS)

}  // namespace spion::nvrtc_abi
