// Loads compiled kernels into this process through LLVM's ORC.
#pragma once

#include <memory>
#include <string>

#include "runtime/device.h"

namespace spion {

// What every host body defines: computes work items [begin, end) of `arguments`, a struct of
// kernels/*.h.
using HostFunction = void (*)(const void* arguments, long long begin, long long end);

class HostKernel : public LoadedKernel {
  public:
    virtual HostFunction function() const = 0;
};

// Kernels stay mapped while the HostKernel lives; it must not outlive the Jit. Thread-safe.
class Jit {
  public:
    Jit();
    ~Jit();
    // Throws InternalError when the object is none or lacks the entry.
    std::unique_ptr<HostKernel> load(const std::string& entry, const std::string& object);

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace spion
