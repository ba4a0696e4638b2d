// Launches of training steps that are captured once and replayed: a GPU then begins each kernel without
// waiting for the host's launch of it.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <tuple>

#include "runtime/device.h"

namespace spion {

// Launches of one kind are the same whenever they are made: what differs from step to step they read from
// device memory (SpionPassState).
struct LaunchKind {
    bool first = true, last = true;  // of the passes of a step
    std::size_t buffer = 0;          // that holds the batch
    int samples = 0;                 // of the batch
    friend bool operator<(const LaunchKind& a, const LaunchKind& b) {
        return std::tie(a.first, a.last, a.buffer, a.samples) <
               std::tie(b.first, b.last, b.buffer, b.samples);
    }
};

class StepGraphs {
  public:
    // on: else, and on a device that captures nothing, everything is launched each time. The device must
    // outlive this.
    StepGraphs(Device& device, bool on) : device_(&device), on_(on && device.captures()) {}

    // Makes the launches that `enqueue` makes: by calling it the first time, when kernels and memory may
    // have to be prepared; it is captured the second time, and replayed from then on.
    void run(const LaunchKind& kind, const std::function<void()>& enqueue);

    // To be called before kernels or memory that the launches use go away or are replaced, but for the
    // device's workspace: everything begins anew.
    void forget() { graphs_.clear(); }

    bool on() const { return on_; }
    int captured() const { return captured_; }  // so far, forgotten ones too

  private:
    Device* device_;
    bool on_;
    int captured_ = 0;
    int workspace_growths_ = 0;  // of the device, when the oldest was launched
    std::map<LaunchKind, std::unique_ptr<LaunchGraph>> graphs_;  // null: launched once
};

}  // namespace spion
