// A CUDA context for the length of a call, whatever the thread's own.
#pragma once

#include "runtime/cuda/driver.h"

namespace spion {

// Makes `context` the thread's current one, and leaves the thread as it was. Costs a look where it
// is current already.
class ContextScope {
  public:
    // Throws DeviceError when the driver refuses.
    ContextScope(const driver_abi::Functions& functions, driver_abi::Context context)
        : cuda_(functions) {
        driver_abi::Context current = nullptr;
        if (cuda_.cuCtxGetCurrent(&current) != driver_abi::kSuccess || current != context) {
            check_driver(cuda_.cuCtxPushCurrent_v2(context), "cuCtxPushCurrent");
            pushed_ = true;
        }
    }
    ~ContextScope() {
        if (pushed_) {
            driver_abi::Context popped = nullptr;
            cuda_.cuCtxPopCurrent_v2(&popped);
        }
    }
    ContextScope(const ContextScope&) = delete;
    ContextScope& operator=(const ContextScope&) = delete;

  private:
    const driver_abi::Functions& cuda_;
    bool pushed_ = false;
};

}  // namespace spion
