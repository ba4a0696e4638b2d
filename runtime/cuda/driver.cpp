#include "runtime/cuda/driver.h"

#include <fmt/format.h>

#include "ir/error.h"
#include "runtime/cuda/shared_library.h"
#include "runtime/forks.h"

namespace spion {
namespace {

using driver_abi::Functions;
using driver_abi::kSuccess;
using driver_abi::Result;

// Below it there is no bf16 and no cp.async, which the kernels are made of.
constexpr int kOldestCapability = 80;

struct Driver {
    SharedLibrary library{{"libcuda.so.1"}};
    Functions functions;
    std::string problem;  // of the library; empty: it can be called
};

std::string describe(const Functions& functions, Result result) {
    const char* name = nullptr;
    const char* description = nullptr;
    if (functions.cuGetErrorName == nullptr || functions.cuGetErrorString == nullptr ||
        functions.cuGetErrorName(result, &name) != kSuccess ||
        functions.cuGetErrorString(result, &description) != kSuccess) {
        return fmt::format("CUDA error {}", result);
    }
    return fmt::format("{} ({})", name, description);
}

std::string device_problem(const Functions& functions) {
    int count = 0;
    driver_abi::Device device = 0;
    int major = 0, minor = 0;
    char name[256] = "";
    if (const Result result = functions.cuInit(0); result == driver_abi::kErrorStubLibrary) {
        return "the libcuda.so.1 that was found is the toolkit's stub and not a driver; install "
               "NVIDIA's driver and take the stubs folder out of LD_LIBRARY_PATH";
    } else if (result != kSuccess && result != driver_abi::kErrorNoDevice) {
        return fmt::format("NVIDIA's driver does not start: {}; see what nvidia-smi says",
                           describe(functions, result));
    }
    if (functions.cuDeviceGetCount(&count) != kSuccess || count == 0) {
        return "NVIDIA's driver is installed but shows no GPU; see what nvidia-smi says and "
               "whether "
               "CUDA_VISIBLE_DEVICES hides it";
    }
    if (functions.cuDeviceGet(&device, 0) != kSuccess ||
        functions.cuDeviceGetAttribute(&major, driver_abi::kDeviceCapabilityMajor, device) !=
            kSuccess ||
        functions.cuDeviceGetAttribute(&minor, driver_abi::kDeviceCapabilityMinor, device) !=
            kSuccess ||
        functions.cuDeviceGetName(name, sizeof(name), device) != kSuccess) {
        return "NVIDIA's driver cannot describe its first GPU; see what nvidia-smi says";
    }
    if (major * 10 + minor < kOldestCapability) {
        return fmt::format("{} has compute capability {}.{}, but 8.0 (Ampere) or later is needed",
                           static_cast<const char*>(name), major, minor);
    }
    return {};
}

Driver open_driver() {
    Driver driver;
    if (!driver.library.is_open()) {
        driver.problem =
            fmt::format("no NVIDIA driver: {}; install one that supports CUDA 12 or later",
                        driver.library.failures());
        return driver;
    }
    if (const std::string missing = driver.functions.load(driver.library); !missing.empty()) {
        driver.problem = fmt::format(
            "NVIDIA's driver at {} lacks {}: install one that supports CUDA 12 or later",
            driver.library.path(), missing);
    }
    return driver;
}

const Driver& opened_driver() {
    static const Driver driver = open_driver();
    return driver;
}

// The same with its GPU: what takes long is done only where a GPU is wanted.
const std::string& first_problem() {
    static const unsigned started_in = forks();
    static const std::string problem = [] {
        const Driver& driver = opened_driver();
        return driver.problem.empty() ? device_problem(driver.functions) : driver.problem;
    }();
    static const std::string forked =
        "NVIDIA's driver was started before this process was forked, and does not work in a "
        "child: fork before the first use of a GPU, or start the child as a program (exec)";
    return problem.empty() && started_in != forks() ? forked : problem;
}

}  // namespace

std::optional<std::string> driver_problem() {
    const std::string& problem = first_problem();
    return problem.empty() ? std::nullopt : std::optional(problem);
}

const Functions& driver() {
    if (!first_problem().empty()) {
        throw DeviceError("{}", first_problem());
    }
    return opened_driver().functions;
}

int driver_device_count() {
    int count = 0;
    check_driver(driver().cuDeviceGetCount(&count), "cuDeviceGetCount");
    return count;
}

std::string driver_path() {
    return opened_driver().library.path();
}

std::optional<CompilerRelease> driver_cuda_release() {
    int version = 0;  // 1000 * major + 10 * minor
    const Functions& functions = opened_driver().functions;
    if (functions.cuDriverGetVersion == nullptr ||
        functions.cuDriverGetVersion(&version) != kSuccess || version <= 0) {
        return std::nullopt;
    }
    return CompilerRelease{.major = version / 1000, .minor = version % 1000 / 10};
}

std::string describe_driver_error(Result result) {
    return describe(opened_driver().functions, result);
}

void check_driver(Result result, const char* doing) {
    if (result != kSuccess) {
        throw DeviceError("{}: {}", doing, describe_driver_error(result));
    }
}

}  // namespace spion
