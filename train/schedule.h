// The learning rate of each step: one cycle, linear up to the peak, then linear down (PyTorch's
// OneCycleLR with anneal_strategy="linear", div_factor 25, final_div_factor 1e4). The betas of
// AdamW stay fixed: the paper's settings give one value each, so momentum is not cycled.
#pragma once

#include <cstdint>

namespace spion {

class OneCycleSchedule {
  public:
    // warmup_fraction in [0, 1]: the peak is reached at step warmup_fraction * total_steps - 1.
    // Throws UserError for total_steps < 1 or a fraction out of range.
    OneCycleSchedule(double peak, std::int64_t total_steps, double warmup_fraction);

    // step counts from 0; steps beyond the last have the last one's rate.
    double at(std::int64_t step) const;
    std::int64_t total_steps() const { return total_steps_; }

  private:
    double peak_;
    std::int64_t total_steps_;
    double peak_step_;  // may be fractional or below 0, as in PyTorch
};

}  // namespace spion
