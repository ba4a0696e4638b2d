// The part of cuBLASLt's binary interface that is used, declared here because the toolkit's headers
// may be absent where spion is built. tests/runtime/cuda_abi_test.cpp holds it against them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/cuda/driver_abi.h"
#include "runtime/cuda/function_table.h"

namespace spion::cublas_abi {

using Status = int;
using Handle = struct LtHandle*;
using MatmulDesc = struct LtMatmulDesc*;
using MatrixLayout = struct LtMatrixLayout*;
using Preference = struct LtPreference*;
using Stream = driver_abi::Stream;

constexpr Status kSuccess = 0;

constexpr int kFp32 = 0;  // cudaDataType
constexpr int kFp16 = 2;
constexpr int kBf16 = 14;
constexpr int kComputeFp32 = 68;  // cublasComputeType_t: IEEE fp32, never tf32

constexpr std::int32_t kKeep = 0;  // cublasOperation_t
constexpr std::int32_t kTranspose = 1;

constexpr int kDescTransA = 3;  // cublasLtMatmulDescAttributes_t
constexpr int kDescTransB = 4;
constexpr int kDescEpilogue = 7;
constexpr int kDescBiasPointer = 8;
constexpr std::uint32_t kEpilogueBias = 4;

constexpr int kPreferMaxWorkspaceBytes = 1;  // cublasLtMatmulPreferenceAttributes_t
constexpr int kPreferReductionSchemes = 3;
constexpr int kPreferMinAlignmentA = 5;
constexpr int kPreferMinAlignmentB = 6;
constexpr int kPreferMinAlignmentC = 7;
constexpr int kPreferMinAlignmentD = 8;
constexpr std::uint32_t kNoReduction = 0;  // cublasLtReductionScheme_t
constexpr std::uint32_t kReductionInComputeType = 2;

struct Algorithm {
    std::uint64_t data[8];
};
struct HeuristicResult {
    Algorithm algorithm;
    std::size_t workspace_bytes;
    Status state;
    float waves;
    int reserved[4];
};

// X(name, return and parameter types)
#define SPION_CUBLAS_FUNCTIONS(X)                                                                \
    X(cublasLtCreate, Status(Handle*))                                                           \
    X(cublasLtDestroy, Status(Handle))                                                           \
    X(cublasLtGetVersion, std::size_t())                                                         \
    X(cublasLtGetStatusName, const char*(Status))                                                \
    X(cublasLtMatmulDescCreate, Status(MatmulDesc*, int compute, int scale_type))                \
    X(cublasLtMatmulDescDestroy, Status(MatmulDesc))                                             \
    X(cublasLtMatmulDescSetAttribute, Status(MatmulDesc, int, const void*, std::size_t))         \
    X(cublasLtMatrixLayoutCreate, Status(MatrixLayout*, int type, std::uint64_t rows,            \
                                         std::uint64_t columns, std::int64_t pitch))             \
    X(cublasLtMatrixLayoutDestroy, Status(MatrixLayout))                                         \
    X(cublasLtMatmulPreferenceCreate, Status(Preference*))                                       \
    X(cublasLtMatmulPreferenceDestroy, Status(Preference))                                       \
    X(cublasLtMatmulPreferenceSetAttribute, Status(Preference, int, const void*, std::size_t))   \
    X(cublasLtMatmulAlgoGetHeuristic,                                                            \
      Status(Handle, MatmulDesc, MatrixLayout a, MatrixLayout b, MatrixLayout c, MatrixLayout d, \
             Preference, int wanted, HeuristicResult*, int* found))                              \
    X(cublasLtMatmul,                                                                            \
      Status(Handle, MatmulDesc, const void* alpha, const void* a, MatrixLayout, const void* b,  \
             MatrixLayout, const void* beta, const void* c, MatrixLayout, void* d, MatrixLayout, \
             const Algorithm*, void* workspace, std::size_t workspace_bytes, Stream))

SPION_FUNCTION_TABLE(SPION_CUBLAS_FUNCTIONS)

}  // namespace spion::cublas_abi
