// Ctrl-C: the first asks the training loop to finish its step and stop; the second ends the
// process.
#pragma once

namespace spion {

// While one exists, SIGINT and SIGTERM only set a flag (once; then they have their usual effect).
class InterruptGuard {
  public:
    InterruptGuard();
    ~InterruptGuard();
    InterruptGuard(const InterruptGuard&) = delete;
    InterruptGuard& operator=(const InterruptGuard&) = delete;
    bool requested() const;
};

}  // namespace spion
