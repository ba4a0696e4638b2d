#include "train/step_graphs.h"

namespace spion {

void StepGraphs::run(const LaunchKind& kind, const std::function<void()>& enqueue) {
    if (!on_) return enqueue();
    if (const int growths = device_->workspace_growths(); growths != workspace_growths_) {
        forget();
        workspace_growths_ = growths;
    }
    const auto [found, first] = graphs_.try_emplace(kind);
    if (first) return enqueue();
    if (!found->second) {
        found->second = device_->capture(enqueue);
        ++captured_;
    }
    device_->replay(*found->second);
}

}  // namespace spion
