// The part of the CUDA driver's binary interface that is used, declared here because the toolkit's
// headers may be absent where spion is built. tests/runtime/cuda_abi_test.cpp holds it against
// them.
#pragma once

#include <cstddef>

#include "runtime/cuda/function_table.h"

namespace spion::driver_abi {

using Result = int;
using Device = int;
using Context = struct ContextHandle*;
using Stream = struct StreamHandle*;
using Event = struct EventHandle*;
using Module = struct ModuleHandle*;
using Function = struct FunctionHandle*;
using Graph = struct GraphHandle*;
using GraphExec = struct GraphExecHandle*;
using Pointer = unsigned long long;  // CUdeviceptr

constexpr Result kSuccess = 0;
constexpr Result kErrorOutOfMemory = 2;
constexpr Result kErrorStubLibrary = 34;
constexpr Result kErrorNoDevice = 100;
constexpr Result kErrorNoBinaryForGpu = 209;

constexpr int kDeviceMaxThreadsPerBlock = 1;
constexpr int kDeviceClockKhz = 13;
constexpr int kDeviceMultiprocessors = 16;
constexpr int kDeviceMemoryClockKhz = 36;
constexpr int kDeviceMemoryBusBits = 37;
constexpr int kDeviceL2Bytes = 38;
constexpr int kDeviceCapabilityMajor = 75;
constexpr int kDeviceCapabilityMinor = 76;
constexpr int kDeviceSharedBytesPerBlockOptIn = 97;

constexpr int kFunctionMaxDynamicSharedBytes = 8;

constexpr int kPointerContext = 1;
constexpr int kPointerMemoryType = 2;
constexpr int kPointerDeviceOrdinal = 9;
constexpr unsigned kMemoryOfDevice = 2;

// CUtensorMapEncodeTiled's enumerations.
constexpr int kTensorMapTwoByteFloats = 9;  // bf16; a copy does not look at the format
constexpr int kTensorMapNoInterleave = 0;
constexpr int kTensorMapSwizzle32 = 1;
constexpr int kTensorMapSwizzle64 = 2;
constexpr int kTensorMapSwizzle128 = 3;
constexpr int kTensorMapPromote256 = 3;
constexpr int kTensorMapZerosOutside = 0;

// CUlaunchAttribute and CUlaunchConfig.
constexpr int kLaunchAllAtOnce = 2;           // cooperative
constexpr int kLaunchMayOverlapPrevious = 6;  // programmatic stream serialisation
struct LaunchAttribute {
    int id;
    int padding;
    union {
        char bytes[64];
        void* alignment;
        int flag;
    } value;
};
struct LaunchConfig {
    unsigned grid_x, grid_y, grid_z;
    unsigned block_x, block_y, block_z;
    unsigned shared_bytes;
    Stream stream;
    LaunchAttribute* attributes;
    unsigned attribute_count;
};

constexpr unsigned kStreamNonBlocking = 1;
constexpr int kStreamNotCaptured = 0;
constexpr int kCaptureOfThread = 1;  // other threads may allocate and load meanwhile
constexpr unsigned kEventDefault = 0;
constexpr unsigned kEventNoTiming = 2;

// X(name, return and parameter types). The names are the exported symbols: "_v2" is part of the
// binary interface, and the header's macros map the plain names to it.
#define SPION_DRIVER_FUNCTIONS(X)                                                               \
    X(cuInit, Result(unsigned flags))                                                           \
    X(cuDriverGetVersion, Result(int*))                                                         \
    X(cuGetErrorName, Result(Result, const char**))                                             \
    X(cuGetErrorString, Result(Result, const char**))                                           \
    X(cuDeviceGetCount, Result(int*))                                                           \
    X(cuDeviceGet, Result(Device*, int ordinal))                                                \
    X(cuDeviceGetName, Result(char*, int bytes, Device))                                        \
    X(cuDeviceTotalMem_v2, Result(std::size_t*, Device))                                        \
    X(cuDeviceGetAttribute, Result(int*, int attribute, Device))                                \
    X(cuDevicePrimaryCtxRetain, Result(Context*, Device))                                       \
    X(cuDevicePrimaryCtxRelease_v2, Result(Device))                                             \
    X(cuCtxGetCurrent, Result(Context*))                                                        \
    X(cuCtxPushCurrent_v2, Result(Context))                                                     \
    X(cuCtxPopCurrent_v2, Result(Context*))                                                     \
    X(cuPointerGetAttributes, Result(unsigned count, int* attributes, void** values, Pointer))  \
    X(cuMemGetInfo_v2, Result(std::size_t* free, std::size_t* total))                           \
    X(cuMemAlloc_v2, Result(Pointer*, std::size_t))                                             \
    X(cuMemFree_v2, Result(Pointer))                                                            \
    X(cuMemAllocHost_v2, Result(void**, std::size_t))                                           \
    X(cuMemFreeHost, Result(void*))                                                             \
    X(cuMemcpyHtoDAsync_v2, Result(Pointer, const void*, std::size_t, Stream))                  \
    X(cuMemcpyDtoHAsync_v2, Result(void*, Pointer, std::size_t, Stream))                        \
    X(cuMemsetD8Async, Result(Pointer, unsigned char, std::size_t, Stream))                     \
    X(cuStreamCreate, Result(Stream*, unsigned flags))                                          \
    X(cuStreamDestroy_v2, Result(Stream))                                                       \
    X(cuStreamSynchronize, Result(Stream))                                                      \
    X(cuStreamWaitEvent, Result(Stream, Event, unsigned flags))                                 \
    X(cuStreamGetCtx, Result(Stream, Context*))                                                 \
    X(cuStreamIsCapturing, Result(Stream, int* status))                                         \
    X(cuStreamBeginCapture_v2, Result(Stream, int mode))                                        \
    X(cuStreamEndCapture, Result(Stream, Graph*))                                               \
    X(cuGraphInstantiateWithFlags, Result(GraphExec*, Graph, unsigned long long flags))         \
    X(cuGraphLaunch, Result(GraphExec, Stream))                                                 \
    X(cuGraphExecDestroy, Result(GraphExec))                                                    \
    X(cuGraphDestroy, Result(Graph))                                                            \
    X(cuEventCreate, Result(Event*, unsigned flags))                                            \
    X(cuEventDestroy_v2, Result(Event))                                                         \
    X(cuEventRecord, Result(Event, Stream))                                                     \
    X(cuEventSynchronize, Result(Event))                                                        \
    X(cuEventElapsedTime, Result(float* milliseconds, Event, Event))                            \
    X(cuModuleLoadData, Result(Module*, const void* image))                                     \
    X(cuModuleUnload, Result(Module))                                                           \
    X(cuModuleGetFunction, Result(Function*, Module, const char* name))                         \
    X(cuFuncSetAttribute, Result(Function, int attribute, int value))                           \
    X(cuLaunchKernelEx, Result(const LaunchConfig*, Function, void** parameters, void** extra)) \
    X(cuTensorMapEncodeTiled,                                                                   \
      Result(void* map, int type, unsigned rank, void* data, const unsigned long long* extent,  \
             const unsigned long long* stride, const unsigned* box,                             \
             const unsigned* element_stride, int interleave, int swizzle, int promotion,        \
             int outside))

SPION_FUNCTION_TABLE(SPION_DRIVER_FUNCTIONS)

}  // namespace spion::driver_abi
