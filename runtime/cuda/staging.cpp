#include "runtime/cuda/staging.h"

#include <algorithm>
#include <cstring>

#include "runtime/cuda/driver.h"

namespace spion {
namespace {

using driver_abi::kSuccess;
using driver_abi::Result;

constexpr std::size_t kAlignment = 256;  // of each copy's source

}  // namespace

Staging::Staging(const driver_abi::Functions& functions, driver_abi::Stream stream,
                 std::size_t half_bytes)
    : cuda_(functions), stream_(stream), half_bytes_(half_bytes) {
    try {
        for (Half& half : halves_) {
            void* data = nullptr;
            check_driver(cuda_.cuMemAllocHost_v2(&data, half_bytes_),
                         "allocating page-locked host memory");
            half.data = static_cast<std::byte*>(data);
            check_driver(cuda_.cuEventCreate(&half.read, driver_abi::kEventNoTiming),
                         "creating an event");
        }
    } catch (...) {
        release();
        throw;
    }
}

Staging::~Staging() {
    release();
}

void Staging::release() {
    for (Half& half : halves_) {
        if (half.read != nullptr) cuda_.cuEventDestroy_v2(half.read);
        if (half.data != nullptr) cuda_.cuMemFreeHost(half.data);
    }
}

// Leaves the current half for the other, once the copies out of that are done.
Result Staging::turn() {
    Half& left = halves_[current_];
    if (const Result result = cuda_.cuEventRecord(left.read, stream_); result != kSuccess) {
        return result;
    }
    left.marked = true;
    current_ = 1 - current_;
    used_ = 0;
    const Half& next = halves_[current_];
    return next.marked ? cuda_.cuEventSynchronize(next.read) : kSuccess;
}

Result Staging::copy_in(driver_abi::Pointer device, const void* host, std::size_t bytes) {
    const auto* source = static_cast<const std::byte*>(host);
    while (bytes > 0) {
        if (used_ >= half_bytes_) {
            if (const Result result = turn(); result != kSuccess) return result;
        }
        const std::size_t piece = std::min(bytes, half_bytes_ - used_);
        std::byte* staged = halves_[current_].data + used_;
        std::memcpy(staged, source, piece);
        const Result result = cuda_.cuMemcpyHtoDAsync_v2(device, staged, piece, stream_);
        if (result != kSuccess) return result;
        used_ += (piece + kAlignment - 1) / kAlignment * kAlignment;
        device += piece;
        source += piece;
        bytes -= piece;
    }
    return kSuccess;
}

}  // namespace spion
