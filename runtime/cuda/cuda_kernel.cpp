#include "runtime/cuda/cuda_kernel.h"

#include <fmt/format.h>

#include <utility>

#include "ir/error.h"
#include "runtime/cuda/context_scope.h"
#include "runtime/cuda/driver.h"
#include "runtime/cuda/foreign.h"

namespace spion {

using driver_abi::kSuccess;

CudaKernel::CudaKernel(const driver_abi::Functions& functions, driver_abi::Context context,
                       std::string entry, const KernelBinary& binary)
    : cuda_(functions), context_(context), entry_(std::move(entry)) {
    if (const auto result = cuda_.cuModuleLoadData(&module_, binary.code.data());
        result != kSuccess) {
        const bool foreign = result == driver_abi::kErrorNoBinaryForGpu;
        throw DeviceError("kernel '{}' cannot be loaded: {}{}", entry_,
                          describe_driver_error(result),
                          foreign ? "; NVRTC is newer than the driver, or it was compiled for "
                                    "another GPU: update the driver or install an older NVRTC"
                                  : "");
    }
    if (cuda_.cuModuleGetFunction(&function_, module_, entry_.c_str()) != kSuccess) {
        cuda_.cuModuleUnload(module_);
        throw InternalError("the binary of kernel '{}' has no entry of that name", entry_);
    }
}

CudaKernel::~CudaKernel() {
    try {
        const ContextScope scope(cuda_, context_);
        cuda_.cuModuleUnload(module_);
    } catch (const DeviceError&) {
        // The driver is gone, and the module with it.
    }
}

const CudaKernel& CudaKernel::of(const LoadedKernel& kernel) {
    const auto* loaded = dynamic_cast<const CudaKernel*>(&kernel);
    if (loaded == nullptr) {
        throw InternalError("kernel '{}' was not loaded by a GPU", kernel.entry());
    }
    return *loaded;
}

void CudaKernel::allow_shared_bytes(int bytes) const {
    if (bytes > allowed_shared_bytes_) {
        if (const auto result = cuda_.cuFuncSetAttribute(
                function_, driver_abi::kFunctionMaxDynamicSharedBytes, bytes);
            result != kSuccess) {
            throw DeviceError(
                "kernel '{}' cannot be launched with {} bytes of shared memory a block: {}", entry_,
                bytes, describe_driver_error(result));
        }
        allowed_shared_bytes_ = bytes;
    }
}

void CudaKernel::launch(const LaunchGeometry& geometry, const void* arguments,
                        driver_abi::Stream stream) const {
    // By address, so that the driver puts it where the kernel expects it: a struct with an
    // alignment of 64 does not lie at the start of the parameters.
    void* parameters[] = {const_cast<void*>(arguments)};
    driver_abi::LaunchAttribute attribute{.id = geometry.all_at_once
                                                    ? driver_abi::kLaunchAllAtOnce
                                                    : driver_abi::kLaunchMayOverlapPrevious,
                                          .padding = 0,
                                          .value = {}};
    attribute.value.flag = 1;
    const driver_abi::LaunchConfig config{
        .grid_x = static_cast<unsigned>(geometry.work_items),
        .grid_y = 1,
        .grid_z = 1,
        .block_x = static_cast<unsigned>(geometry.threads),
        .block_y = 1,
        .block_z = 1,
        .shared_bytes = static_cast<unsigned>(geometry.shared_bytes),
        .stream = stream,
        .attributes = &attribute,
        .attribute_count = geometry.overlaps_previous || geometry.all_at_once ? 1U : 0U};
    const driver_abi::Result result =
        cuda_.cuLaunchKernelEx(&config, function_, parameters, nullptr);
    if (result != kSuccess) {
        check_foreign_stream(cuda_, context_, stream);
        throw DeviceError("launching kernel '{}' failed: {}", entry_,
                          describe_driver_error(result));
    }
}

}  // namespace spion
