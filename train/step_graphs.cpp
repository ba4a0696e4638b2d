#include "train/step_graphs.h"

#include "ir/error.h"

namespace spion {
namespace {

std::unique_ptr<LaunchGraph> capture(Device& device, const std::function<void()>& enqueue) {
    try {
        return device.capture(enqueue);
    } catch (const DeviceError& error) {
        throw DeviceError("{}; `spion train --graph off` launches each kernel by itself",
                          error.what());
    }
}

}  // namespace

void StepGraphs::run(const LaunchKind& kind, const std::function<void()>& enqueue) {
    if (!on_) return enqueue();
    if (const int growths = device_->workspace_growths(); growths != workspace_growths_) {
        forget();
        workspace_growths_ = growths;
    }
    const auto [found, first] = graphs_.try_emplace(kind);
    if (first) return enqueue();
    if (!found->second) {
        found->second = capture(*device_, enqueue);
        ++captured_;
    }
    device_->replay(*found->second);
}

}  // namespace spion
