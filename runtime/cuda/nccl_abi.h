// The part of NCCL's binary interface that is used, declared here because its header may be absent
// where spion is built. tests/runtime/cuda_abi_test.cpp holds it against one where there is one.
#pragma once

#include <cstddef>

#include "runtime/cuda/driver_abi.h"
#include "runtime/cuda/function_table.h"

namespace spion::nccl_abi {

using Result = int;
using Comm = struct CommHandle*;
using Stream = driver_abi::Stream;

constexpr Result kSuccess = 0;
constexpr Result kInProgress = 7;

constexpr int kUint8 = 1;  // ncclDataType_t
constexpr int kFloat32 = 7;
constexpr int kSum = 0;  // ncclRedOp_t

// ncclUniqueId, passed by value.
struct UniqueId {
    char bytes[128];
};

#define SPION_NCCL_FUNCTIONS(X)                                                             \
    X(ncclGetVersion, Result(int*))                                                         \
    X(ncclGetUniqueId, Result(UniqueId*))                                                   \
    X(ncclCommInitRank, Result(Comm*, int ranks, UniqueId, int rank))                       \
    X(ncclCommDestroy, Result(Comm))                                                        \
    X(ncclCommAbort, Result(Comm))                                                          \
    X(ncclCommGetAsyncError, Result(Comm, Result*))                                         \
    X(ncclGetErrorString, const char*(Result))                                              \
    X(ncclGetLastError, const char*(Comm))                                                  \
    X(ncclAllReduce,                                                                        \
      Result(const void*, void*, std::size_t count, int type, int operation, Comm, Stream)) \
    X(ncclAllGather, Result(const void*, void*, std::size_t count, int type, Comm, Stream))

SPION_FUNCTION_TABLE(SPION_NCCL_FUNCTIONS)

}  // namespace spion::nccl_abi
