// Tests of the training step's fused kernels on a GPU: tensors to the device and back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "runtime/cache.h"
#include "tests/runtime/gpu_fixture.h"

namespace spion {

class FusedKernelGpuTest : public GpuTest {
  protected:
    template <typename T>
    Buffer upload(const std::vector<T>& values) {
        Buffer buffer(*device_, values.size() * sizeof(T));
        device_->copy_in(buffer.data(), values.data(), buffer.bytes());
        return buffer;
    }
    template <typename T>
    std::vector<T> download(const Buffer& buffer) {
        std::vector<T> values(buffer.bytes() / sizeof(T));
        device_->copy_out(values.data(), buffer.data(), buffer.bytes());
        return values;
    }
    // What a kernel must write: every byte 0xFF, which is NaN in every element type.
    template <typename T>
    Buffer poisoned(std::int64_t count) {
        Buffer buffer(*device_, static_cast<std::size_t>(count) * sizeof(T));
        poison(buffer);
        return buffer;
    }
    void poison(const Buffer& buffer) { device_->fill(buffer.data(), 0xFF, buffer.bytes()); }

    KernelCache cache_{std::nullopt};
};

}  // namespace spion
