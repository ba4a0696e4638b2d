// The CUDA driver (libcuda.so.1), opened when first needed.
#pragma once

#include <optional>
#include <string>

#include "ir/target.h"
#include "runtime/cuda/driver_abi.h"

namespace spion {

// Why no GPU can be used on this machine (no driver, no device, too old) and how to mend it;
// nullopt when there is one.
std::optional<std::string> driver_problem();

// The driver's functions, initialised. Throws DeviceError with driver_problem()'s sentence.
const driver_abi::Functions& driver();

// Devices that CUDA_VISIBLE_DEVICES leaves. Throws as `driver` does.
int driver_device_count();

// The file that was opened; empty when there is no driver.
std::string driver_path();
// The CUDA release that the driver is made for; nullopt when there is no driver. Starts no GPU.
std::optional<CompilerRelease> driver_cuda_release();

// Throws DeviceError "<doing>: CUDA_ERROR_X (its description)" unless `result` is success.
void check_driver(driver_abi::Result result, const char* doing);
// "CUDA_ERROR_X (its description)".
std::string describe_driver_error(driver_abi::Result result);

}  // namespace spion
