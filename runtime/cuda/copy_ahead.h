// Copies to the device beside the work before them: on a stream of their own, in order only with what was
// enqueued on the main stream before the copy before. So a buffer of two that take turns is filled while
// the work that reads the other one runs.
#pragma once

#include <array>
#include <cstddef>
#include <optional>

#include "runtime/cuda/driver_abi.h"
#include "runtime/cuda/staging.h"

namespace spion {

class CopyAhead {
  public:
    // The stream's context must be current, here and in every call. Throws DeviceError.
    CopyAhead(const driver_abi::Functions& functions, driver_abi::Stream main);
    ~CopyAhead();  // both streams must be idle
    CopyAhead(const CopyAhead&) = delete;
    CopyAhead& operator=(const CopyAhead&) = delete;

    // What is enqueued on the main stream from here on sees the copy. `host` has been read when this
    // returns. Returns the driver's first failure.
    driver_abi::Result copy_in(driver_abi::Pointer device, const void* host, std::size_t bytes);

    driver_abi::Stream stream() const { return stream_; }

  private:
    void release();

    const driver_abi::Functions& cuda_;
    driver_abi::Stream main_;
    driver_abi::Stream stream_ = nullptr;
    driver_abi::Event copied_ = nullptr;
    std::array<driver_abi::Event, 2> enqueued_{};  // before the calls, in turns
    std::size_t turn_ = 0;
    bool copied_before_ = false;
    std::optional<Staging> staging_;
};

}  // namespace spion
