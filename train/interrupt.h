// Ctrl-C and its like: the first asks the training loop to finish its step and stop; the second ends
// the process.
#pragma once

#include <array>
#include <csignal>

namespace spion {

// While one exists, SIGINT, SIGTERM and SIGHUP only set a flag (once; then they have their usual
// effect). Those that the process ignores from its start, as a job of a script or under nohup does,
// go on being ignored.
class InterruptGuard {
  public:
    InterruptGuard();
    ~InterruptGuard();  // as before it
    InterruptGuard(const InterruptGuard&) = delete;
    InterruptGuard& operator=(const InterruptGuard&) = delete;
    bool requested() const;

  private:
    static constexpr std::array kSignals{SIGINT, SIGTERM, SIGHUP};
    std::array<struct sigaction, kSignals.size()> before_{};
};

// The signal that the latest guard noted; 0 for none.
int interrupting_signal();

}  // namespace spion
