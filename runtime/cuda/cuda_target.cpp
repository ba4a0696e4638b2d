#include "runtime/cuda/cuda_target.h"

#include <string>

#include "runtime/cuda/driver.h"
#include "runtime/cuda/nvrtc.h"
#include "runtime/environment.h"

namespace spion {
namespace {

using driver_abi::Functions;

int capability_of(const Functions& cuda, driver_abi::Device device) {
    return 10 * device_attribute(cuda, device, driver_abi::kDeviceCapabilityMajor) +
           device_attribute(cuda, device, driver_abi::kDeviceCapabilityMinor);
}

Card describe_card(const Functions& cuda, driver_abi::Device device) {
    const auto value = [&](int which) { return device_attribute(cuda, device, which); };
    return card_of(capability_of(cuda, device),
                   {.clock_khz = value(driver_abi::kDeviceClockKhz),
                    .memory_clock_khz = value(driver_abi::kDeviceMemoryClockKhz),
                    .memory_bus_bits = value(driver_abi::kDeviceMemoryBusBits),
                    .l2_bytes = value(driver_abi::kDeviceL2Bytes)});
}

}  // namespace

int device_attribute(const Functions& cuda, driver_abi::Device device, int which) {
    int value = 0;
    check_driver(cuda.cuDeviceGetAttribute(&value, which, device), "cuDeviceGetAttribute");
    return value;
}

Target describe_device(const Functions& cuda, driver_abi::Device device) {
    const int capability = capability_of(cuda, device);
    const std::string arch = arch_of(capability);
    const Target target{
        .back_end = BackEnd::kCuda,
        .arch = arch,
        .features = "",
        .compute_capability = capability,
        .sm_count = device_attribute(cuda, device, driver_abi::kDeviceMultiprocessors),
        .shared_bytes_per_block =
            device_attribute(cuda, device, driver_abi::kDeviceSharedBytesPerBlockOptIn),
        .gpu = features_of(arch),
        .card = describe_card(cuda, device)};
    return environment_switch("SPION_WGMMA", true) ? target : without_features(target);
}

Target describe_target(const Functions& cuda, driver_abi::Device device) {
    Target target = describe_device(cuda, device);
    target.compiler = nvrtc_problem() ? kNewestNvrtc : nvrtc_release(target.arch);
    return target;
}

}  // namespace spion
