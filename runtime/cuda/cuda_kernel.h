// A kernel's binary on the GPU, ready to be launched.
#pragma once

#include <atomic>
#include <string>

#include "runtime/cuda/driver_abi.h"
#include "runtime/device.h"

namespace spion {

// A module with one kernel.
class CudaKernel : public LoadedKernel {
  public:
    // `context` must be current. Throws DeviceError when the binary cannot be loaded, as one for
    // another GPU; InternalError when it has no kernel `entry`.
    CudaKernel(const driver_abi::Functions& functions, driver_abi::Context context,
               std::string entry, const KernelBinary& binary);
    ~CudaKernel() override;
    // Throws InternalError for another device's.
    static const CudaKernel& of(const LoadedKernel& kernel);
    CudaKernel(const CudaKernel&) = delete;
    CudaKernel& operator=(const CudaKernel&) = delete;

    const std::string& entry() const override { return entry_; }

    // Memory of a block beyond 48 KiB must be asked for before a launch with it; the kernel is then
    // on the device, too. Thread-safe; its context must be current.
    void allow_shared_bytes(int bytes) const;

    // Puts a launch into `stream`, whose context must be current. `arguments` is the kernel's
    // struct. Keeps no state. Throws UserError when the stream is of another context, else
    // DeviceError with the driver's reason.
    void launch(const LaunchGeometry& geometry, const void* arguments,
                driver_abi::Stream stream) const;

  private:
    const driver_abi::Functions& cuda_;
    driver_abi::Context context_;
    std::string entry_;
    driver_abi::Module module_ = nullptr;
    driver_abi::Function function_ = nullptr;
    mutable std::atomic<int> allowed_shared_bytes_ = -1;
};

}  // namespace spion
