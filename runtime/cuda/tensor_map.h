// Tensors as the TMA unit of a GPU is told of them.
#pragma once

#include <array>
#include <cstdint>

#include "runtime/cuda/driver_abi.h"
#include "runtime/device.h"

namespace spion {

// The descriptor with which kernels load `boxes`: two-byte elements, swizzled by the width of a box,
// zeros outside. The context must be current. Throws DeviceError where the driver refuses them.
std::array<std::uint64_t, 16> encode_tensor_map(const driver_abi::Functions& cuda,
                                                const TensorBoxes& boxes);

}  // namespace spion
