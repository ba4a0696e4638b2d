#include "runtime/cuda/cuda_device.h"
#include "runtime/cuda/cuda_target.h"
#include "runtime/cuda/driver.h"
#include "runtime/cuda/nvrtc.h"
#include "runtime/cuda/nvrtc_library.h"

namespace spion {

std::optional<std::string> cuda_problem() {
    if (auto problem = driver_problem()) {
        return problem;
    }
    driver_abi::Device device = 0;
    check_driver(driver().cuDeviceGet(&device, 0), "cuDeviceGet");
    const std::string arch = describe_device(driver(), device).arch;
    if (auto problem = nvrtc_problem(arch)) {
        return problem;
    }
    return nvrtc_driver_problem(arch);
}

}  // namespace spion
