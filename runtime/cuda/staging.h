// Copies to the device through page-locked memory. A copy from ordinary memory makes the host wait
// for the stream; from page-locked memory it is enqueued like a kernel, so the host runs ahead.
#pragma once

#include <array>
#include <cstddef>

#include "runtime/cuda/driver_abi.h"

namespace spion {

// Bytes of each half: several batches of token ids.
constexpr std::size_t kStagingHalfBytes = std::size_t{4} << 20;

// Two halves take turns. The one being left is marked by an event on the stream, and is written
// again only after its event has passed; the host waits nowhere else.
class Staging {
  public:
    // The stream's context must be current, here and in every call. Throws DeviceError.
    Staging(const driver_abi::Functions& functions, driver_abi::Stream stream,
            std::size_t half_bytes = kStagingHalfBytes);
    ~Staging();  // the stream must be idle
    Staging(const Staging&) = delete;
    Staging& operator=(const Staging&) = delete;

    // In order on the stream. `host` has been read when this returns, whatever its size. Returns
    // the driver's first failure.
    driver_abi::Result copy_in(driver_abi::Pointer device, const void* host, std::size_t bytes);

  private:
    struct Half {
        std::byte* data = nullptr;         // page-locked [half_bytes_]
        driver_abi::Event read = nullptr;  // its copies are done
        bool marked = false;               // `read` was recorded
    };
    driver_abi::Result turn();
    void release();

    const driver_abi::Functions& cuda_;
    driver_abi::Stream stream_;
    std::size_t half_bytes_;
    std::array<Half, 2> halves_;
    std::size_t current_ = 0;  // half that is written
    std::size_t used_ = 0;     // bytes of it
};

}  // namespace spion
