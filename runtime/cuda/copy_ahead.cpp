#include "runtime/cuda/copy_ahead.h"

#include "runtime/cuda/driver.h"

namespace spion {

using driver_abi::kSuccess;
using driver_abi::Result;

CopyAhead::CopyAhead(const driver_abi::Functions& functions, driver_abi::Stream main)
    : cuda_(functions), main_(main) {
    try {
        check_driver(cuda_.cuStreamCreate(&stream_, driver_abi::kStreamNonBlocking),
                     "creating a stream");
        for (driver_abi::Event* event : {&copied_, &enqueued_[0], &enqueued_[1]}) {
            check_driver(cuda_.cuEventCreate(event, driver_abi::kEventNoTiming),
                         "creating an event");
        }
        staging_.emplace(cuda_, stream_);
    } catch (...) {
        release();
        throw;
    }
}

CopyAhead::~CopyAhead() {
    release();
}

void CopyAhead::release() {
    staging_.reset();
    for (driver_abi::Event event : {copied_, enqueued_[0], enqueued_[1]}) {
        if (event != nullptr) cuda_.cuEventDestroy_v2(event);
    }
    if (stream_ != nullptr) cuda_.cuStreamDestroy_v2(stream_);
}

Result CopyAhead::copy_in(driver_abi::Pointer device, const void* host, std::size_t bytes) {
    // The first copy follows all work before it, as memory may be anybody's until then.
    driver_abi::Event now = enqueued_[turn_];
    driver_abi::Event before = copied_before_ ? enqueued_[1 - turn_] : now;
    turn_ = 1 - turn_;
    copied_before_ = true;
    if (const Result result = cuda_.cuEventRecord(now, main_); result != kSuccess) return result;
    if (const Result result = cuda_.cuStreamWaitEvent(stream_, before, 0); result != kSuccess) {
        return result;
    }
    if (const Result result = staging_->copy_in(device, host, bytes); result != kSuccess) {
        return result;
    }
    if (const Result result = cuda_.cuEventRecord(copied_, stream_); result != kSuccess) {
        return result;
    }
    return cuda_.cuStreamWaitEvent(main_, copied_, 0);
}

}  // namespace spion
