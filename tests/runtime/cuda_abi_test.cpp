// Our declarations of NVIDIA's binary interfaces against the toolkit's own headers. Built only
// where those are installed; most of it is decided by the compiler.
#include <cublasLt.h>
#include <cuda.h>
#include <gtest/gtest.h>
#include <nvrtc.h>
#if __has_include(<nccl.h>)  // not of the toolkit, but often beside its headers
#include <nccl.h>
#endif

#include <cstddef>
#include <type_traits>

#include "runtime/cuda/cublas_abi.h"
#include "runtime/cuda/driver_abi.h"
#include "runtime/cuda/nccl_abi.h"
#include "runtime/cuda/nvrtc_abi.h"

namespace spion {
namespace {

// Passed alike: both pointers (void* and const included), or both whole numbers, enumerations or
// floating-point numbers of one size.
template <typename Ours, typename Theirs>
constexpr bool kPassedAlike = std::is_pointer_v<Ours> ==
                                  std::is_pointer_v<Theirs>&& std::is_floating_point_v<Ours> ==
                                  std::is_floating_point_v<Theirs> &&
                              sizeof(std::conditional_t<std::is_void_v<Ours>, char, Ours>) ==
                                  sizeof(std::conditional_t<std::is_void_v<Theirs>, char, Theirs>);

// What is behind a pointer must agree too, unless a side is opaque there.
template <typename Ours, typename Theirs>
constexpr bool pointees_agree() {
    if constexpr (std::is_pointer_v<Ours> && std::is_pointer_v<Theirs>) {
        using Our = std::remove_pointer_t<Ours>;
        using Their = std::remove_pointer_t<Theirs>;
        if constexpr (std::is_const_v<Our> != std::is_const_v<Their>) {
            return false;
        } else if constexpr (std::is_scalar_v<Our> && std::is_scalar_v<Their>) {
            return kPassedAlike<Our, Their>;
        } else {
            return std::is_scalar_v<Our> == std::is_scalar_v<Their>;
        }
    } else {
        return true;
    }
}

template <typename Ours, typename Theirs>
struct Agree : std::false_type {};
template <typename OurResult, typename... Our, typename TheirResult, typename... Their>
struct Agree<OurResult(Our...), TheirResult(Their...)> {
    static constexpr bool arguments() {
        if constexpr (sizeof...(Our) != sizeof...(Their)) {
            return false;
        } else {
            return (kPassedAlike<Our, Their> && ...) && (pointees_agree<Our, Their>() && ...);
        }
    }
    static constexpr bool value = kPassedAlike<OurResult, TheirResult> && arguments();
};

// The test of the test: it must be able to fail.
static_assert(Agree<int(int*), int(int*)>::value);
static_assert(!Agree<int(int*), int(int*, int)>::value);
static_assert(!Agree<int(int), int(long)>::value);
static_assert(!Agree<int(int), int(float)>::value);
static_assert(!Agree<int(int*), int(long*)>::value);
static_assert(!Agree<int(int*), int(const int*)>::value);
static_assert(!Agree<int(int), int(int*)>::value);

#define SPION_EXPECT_AGREEMENT(name, ...) \
    static_assert(Agree<Functions::name##Type, decltype(::name)>::value, #name);

namespace nvrtc_check {
using namespace nvrtc_abi;
SPION_NVRTC_FUNCTIONS(SPION_EXPECT_AGREEMENT)
static_assert(kSuccess == NVRTC_SUCCESS);
static_assert(kErrorInvalidOption == NVRTC_ERROR_INVALID_OPTION);
static_assert(kErrorCompilation == NVRTC_ERROR_COMPILATION);
static_assert(kErrorBuiltinOperation == NVRTC_ERROR_BUILTIN_OPERATION_FAILURE);
}  // namespace nvrtc_check

namespace driver_check {
using namespace driver_abi;
SPION_DRIVER_FUNCTIONS(SPION_EXPECT_AGREEMENT)
static_assert(kTensorMapTwoByteFloats == CU_TENSOR_MAP_DATA_TYPE_BFLOAT16);
static_assert(kTensorMapNoInterleave == CU_TENSOR_MAP_INTERLEAVE_NONE);
static_assert(kTensorMapSwizzle32 == CU_TENSOR_MAP_SWIZZLE_32B);
static_assert(kTensorMapSwizzle64 == CU_TENSOR_MAP_SWIZZLE_64B);
static_assert(kTensorMapSwizzle128 == CU_TENSOR_MAP_SWIZZLE_128B);
static_assert(kTensorMapPromote256 == CU_TENSOR_MAP_L2_PROMOTION_L2_256B);
static_assert(kTensorMapZerosOutside == CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
static_assert(kLaunchMayOverlapPrevious == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION);
static_assert(sizeof(LaunchAttribute) == sizeof(CUlaunchAttribute));
static_assert(offsetof(LaunchAttribute, value) == offsetof(CUlaunchAttribute, value));
static_assert(sizeof(LaunchConfig) == sizeof(CUlaunchConfig));
static_assert(offsetof(LaunchConfig, shared_bytes) == offsetof(CUlaunchConfig, sharedMemBytes));
static_assert(offsetof(LaunchConfig, stream) == offsetof(CUlaunchConfig, hStream));
static_assert(offsetof(LaunchConfig, attributes) == offsetof(CUlaunchConfig, attrs));
static_assert(offsetof(LaunchConfig, attribute_count) == offsetof(CUlaunchConfig, numAttrs));
static_assert(kSuccess == CUDA_SUCCESS);
static_assert(kErrorOutOfMemory == CUDA_ERROR_OUT_OF_MEMORY);
static_assert(kErrorStubLibrary == CUDA_ERROR_STUB_LIBRARY);
static_assert(kErrorNoDevice == CUDA_ERROR_NO_DEVICE);
static_assert(kErrorNoBinaryForGpu == CUDA_ERROR_NO_BINARY_FOR_GPU);
static_assert(kDeviceMaxThreadsPerBlock == CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK);
static_assert(kDeviceMultiprocessors == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
static_assert(kDeviceL2Bytes == CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE);
static_assert(kDeviceCapabilityMajor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
static_assert(kDeviceCapabilityMinor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
static_assert(kDeviceSharedBytesPerBlockOptIn ==
              CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
static_assert(kPointerContext == CU_POINTER_ATTRIBUTE_CONTEXT);
static_assert(kStreamNotCaptured == CU_STREAM_CAPTURE_STATUS_NONE);
static_assert(kCaptureOfThread == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
static_assert(kPointerMemoryType == CU_POINTER_ATTRIBUTE_MEMORY_TYPE);
static_assert(kPointerDeviceOrdinal == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL);
static_assert(kMemoryOfDevice == CU_MEMORYTYPE_DEVICE);
static_assert(kFunctionMaxDynamicSharedBytes == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
static_assert(kStreamNonBlocking == CU_STREAM_NON_BLOCKING);
static_assert(kEventDefault == CU_EVENT_DEFAULT);
static_assert(kEventNoTiming == CU_EVENT_DISABLE_TIMING);
static_assert(sizeof(Pointer) == sizeof(CUdeviceptr));

// The names that are loaded are the symbols that the header's macros stand for.
#define SPION_TEXT_OF(name) #name
#define SPION_EXPANDED(name) SPION_TEXT_OF(name)
TEST(DriverAbi, SymbolVersions) {
    EXPECT_STREQ(SPION_EXPANDED(cuMemAlloc), "cuMemAlloc_v2");
    EXPECT_STREQ(SPION_EXPANDED(cuMemFree), "cuMemFree_v2");
    EXPECT_STREQ(SPION_EXPANDED(cuMemAllocHost), "cuMemAllocHost_v2");
    EXPECT_STREQ(SPION_EXPANDED(cuMemGetInfo), "cuMemGetInfo_v2");
    EXPECT_STREQ(SPION_EXPANDED(cuDeviceTotalMem), "cuDeviceTotalMem_v2");
    EXPECT_STREQ(SPION_EXPANDED(cuStreamDestroy), "cuStreamDestroy_v2");
    EXPECT_STREQ(SPION_EXPANDED(cuEventDestroy), "cuEventDestroy_v2");
    EXPECT_STREQ(SPION_EXPANDED(cuDevicePrimaryCtxRelease), "cuDevicePrimaryCtxRelease_v2");
}
}  // namespace driver_check

namespace cublas_check {
using namespace cublas_abi;
SPION_CUBLAS_FUNCTIONS(SPION_EXPECT_AGREEMENT)
static_assert(kSuccess == CUBLAS_STATUS_SUCCESS);
static_assert(kFp32 == CUDA_R_32F);
static_assert(kFp16 == CUDA_R_16F);
static_assert(kBf16 == CUDA_R_16BF);
static_assert(kComputeFp32 == CUBLAS_COMPUTE_32F);
static_assert(kKeep == CUBLAS_OP_N);
static_assert(kTranspose == CUBLAS_OP_T);
static_assert(kDescTransA == CUBLASLT_MATMUL_DESC_TRANSA);
static_assert(kDescTransB == CUBLASLT_MATMUL_DESC_TRANSB);
static_assert(kDescEpilogue == CUBLASLT_MATMUL_DESC_EPILOGUE);
static_assert(kDescBiasPointer == CUBLASLT_MATMUL_DESC_BIAS_POINTER);
static_assert(kEpilogueBias == CUBLASLT_EPILOGUE_BIAS);
static_assert(kPreferMaxWorkspaceBytes == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
static_assert(kPreferReductionSchemes == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK);
static_assert(kPreferMinAlignmentA == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES);
static_assert(kPreferMinAlignmentB == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES);
static_assert(kPreferMinAlignmentC == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES);
static_assert(kPreferMinAlignmentD == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES);
static_assert(kReductionInComputeType == CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
static_assert(kNoReduction == CUBLASLT_REDUCTION_SCHEME_NONE);
static_assert(sizeof(Algorithm) == sizeof(cublasLtMatmulAlgo_t));
static_assert(sizeof(HeuristicResult) == sizeof(cublasLtMatmulHeuristicResult_t));
static_assert(offsetof(HeuristicResult, workspace_bytes) ==
              offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize));
static_assert(offsetof(HeuristicResult, state) == offsetof(cublasLtMatmulHeuristicResult_t, state));
static_assert(offsetof(HeuristicResult, waves) ==
              offsetof(cublasLtMatmulHeuristicResult_t, wavesCount));
static_assert(offsetof(HeuristicResult, reserved) ==
              offsetof(cublasLtMatmulHeuristicResult_t, reserved));
}  // namespace cublas_check

#ifdef NCCL_MAJOR
namespace nccl_check {
using namespace nccl_abi;
SPION_NCCL_FUNCTIONS(SPION_EXPECT_AGREEMENT)
static_assert(kSuccess == ncclSuccess);
static_assert(kInProgress == ncclInProgress);
static_assert(kUint8 == ncclUint8);
static_assert(kFloat32 == ncclFloat32);
static_assert(kSum == ncclSum);
static_assert(sizeof(UniqueId) == sizeof(ncclUniqueId));
}  // namespace nccl_check
#endif

}  // namespace
}  // namespace spion
