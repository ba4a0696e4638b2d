#include "runtime/device.h"

#include <cstdio>
#include <optional>
#include <utility>

#include "ir/error.h"
#include "runtime/output.h"
#ifdef SPION_CUDA_BACKEND
#include "runtime/cuda/cuda_device.h"
#include "runtime/cuda/driver.h"
#endif
#ifdef SPION_HOST_BACKEND
#include "runtime/host/host_device.h"
#endif

namespace spion {
namespace {

std::optional<std::string> gpu_problem() {
#ifdef SPION_CUDA_BACKEND
    return cuda_problem();
#else
    return "this build leaves the CUDA back end out: configure it with -DSPION_CUDA_BACKEND=ON";
#endif
}

std::unique_ptr<Device> open_gpu([[maybe_unused]] int gpu) {
#ifdef SPION_CUDA_BACKEND
    return std::make_unique<CudaDevice>(gpu);
#else
    return nullptr;
#endif
}

// Null in a build without the host back end.
std::unique_ptr<Device> open_host() {
#ifdef SPION_HOST_BACKEND
    return make_host_device();
#else
    return nullptr;
#endif
}

std::unique_ptr<Device> open_any(int gpu) {
    const std::optional<std::string> problem = gpu_problem();
    std::unique_ptr<Device> device = problem ? open_host() : open_gpu(gpu);
    if (!device) {
        throw UserError(
            "no GPU can be used: {}; nor the host, whose back end this build leaves out: configure "
            "it with -DSPION_HOST_BACKEND=ON",
            *problem);
    }
    say("spion: running on {}{}\n", device->name(),
        problem ? fmt::format(" (no GPU: {})", *problem) : "");
    return device;
}

}  // namespace

void* Device::workspace(std::size_t bytes) {
    if (bytes > workspace_bytes_) {
        if (workspace_ != nullptr) {
            synchronize();
            workspace_bytes_ = 0;
            release(std::exchange(workspace_, nullptr));
        }
        workspace_ = allocate(bytes);
        workspace_bytes_ = bytes;
        ++workspace_growths_;
    }
    return workspace_;
}

Buffer::Buffer(Device& device, std::size_t bytes)
    : device_(&device), data_(device.allocate(bytes)), bytes_(bytes) {}

Buffer::~Buffer() {
    if (data_ != nullptr) {
        device_->release(data_);
    }
}

Buffer::Buffer(Buffer&& other) noexcept
    : device_(std::exchange(other.device_, nullptr)),
      data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
}

DeviceChoice parse_device_choice(std::string_view name) {
    if (name == "auto") {
        return DeviceChoice::kAuto;
    }
    if (name == "cpu") {
        return DeviceChoice::kCpu;
    }
    if (name == "cuda") {
        return DeviceChoice::kCuda;
    }
    throw UserError("device '{}' is not known: use auto, cpu or cuda", name);
}

std::unique_ptr<Device> open_device(DeviceChoice choice, int gpu) {
    switch (choice) {
        case DeviceChoice::kAuto:
            return open_any(gpu);
        case DeviceChoice::kCpu:
            if (auto host = open_host()) {
                return host;
            }
            throw UserError(
                "device cpu was asked for, but this build leaves the host back end out: configure "
                "it with -DSPION_HOST_BACKEND=ON, or use --device cuda");
        case DeviceChoice::kCuda:
            if (const auto problem = gpu_problem()) {
                throw UserError("device cuda was asked for, but {}; or use --device cpu", *problem);
            }
            return open_gpu(gpu);
    }
    throw InternalError("a device choice of value {}", static_cast<int>(choice));
}

int visible_gpus() {
#ifdef SPION_CUDA_BACKEND
    return driver_problem() ? 0 : driver_device_count();
#else
    return 0;
#endif
}

}  // namespace spion
