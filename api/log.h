// Where what the run time says goes: to the log of the context that it says it for, and nowhere
// where there is none. The library prints nothing.
#pragma once

#include <cstdint>

#include "include/spion/spion_c.h"

namespace spion::api {

struct Log {
    spion_log_function call = nullptr;
    void* user = nullptr;

    void operator()(bool warning, const char* line) const {
        if (call != nullptr) {
            call(user, warning ? SPION_LOG_WARNING : SPION_LOG_INFO, line);
        }
    }
};

// For its length, what is said on this thread goes to `log`.
class LogScope {
  public:
    explicit LogScope(Log log);
    ~LogScope();
    LogScope(const LogScope&) = delete;
    LogScope& operator=(const LogScope&) = delete;

  private:
    Log before_;
};

}  // namespace spion::api
