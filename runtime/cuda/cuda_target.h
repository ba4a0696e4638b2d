// A GPU as the driver describes it.
#pragma once

#include "ir/target.h"
#include "runtime/cuda/driver_abi.h"

namespace spion {

// Throws DeviceError when the driver does not say.
int device_attribute(const driver_abi::Functions& cuda, driver_abi::Device device, int which);

// Less the compiler. SPION_WGMMA=0 does without the features, to compare.
Target describe_device(const driver_abi::Functions& cuda, driver_abi::Device device);
// With the NVRTC found here, or where there is none the newest.
Target describe_target(const driver_abi::Functions& cuda, driver_abi::Device device);

}  // namespace spion
