#include "runtime/cuda/tensor_map.h"

#include <algorithm>

#include "ir/error.h"
#include "runtime/cuda/driver.h"

namespace spion {

std::array<std::uint64_t, 16> encode_tensor_map(const driver_abi::Functions& cuda,
                                                const TensorBoxes& boxes) {
    unsigned long long extent[4], stride[3];
    std::copy_n(boxes.extent, 4, extent);
    std::copy_n(boxes.stride, 3, stride);
    const unsigned box[4] = {static_cast<unsigned>(boxes.columns),
                             static_cast<unsigned>(boxes.rows), 1, 1};
    const unsigned one[4] = {1, 1, 1, 1};
    const int swizzle = boxes.columns == 64   ? driver_abi::kTensorMapSwizzle128
                        : boxes.columns == 32 ? driver_abi::kTensorMapSwizzle64
                                              : driver_abi::kTensorMapSwizzle32;
    alignas(64) std::array<std::uint64_t, 16> map{};
    const driver_abi::Result result = cuda.cuTensorMapEncodeTiled(
        map.data(), driver_abi::kTensorMapTwoByteFloats, 4, const_cast<void*>(boxes.data), extent,
        stride, box, one, driver_abi::kTensorMapNoInterleave, swizzle,
        driver_abi::kTensorMapPromote256, driver_abi::kTensorMapZerosOutside);
    if (result != driver_abi::kSuccess) {
        throw DeviceError(
            "describing a tensor [{}, {}, {}, {}] at {} to the copy engine, with row, head and "
            "batch strides of {}, {} and {} bytes: {}",
            extent[3], extent[2], extent[1], extent[0], boxes.data, stride[0], stride[1], stride[2],
            describe_driver_error(result));
    }
    return map;
}

}  // namespace spion
