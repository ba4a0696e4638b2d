// A dropout's step as a kernel is given it: by its arguments, or in memory that they point to.
#pragma once

#include "kernels/layer_arguments.h"

namespace spion {

// Of SpionDropout or SpionDraws. Must outlive the launch. In memory: then the arguments name another step,
// which nothing may be drawn from.
template <typename Draws>
class GivenStep {
  public:
    GivenStep(const Draws& draws, bool in_memory) : draws_(draws) {
        if (!in_memory) return;
        state_.pass = draws.step;
        draws_.step ^= 1;
        draws_.now = &state_;
    }
    GivenStep(const GivenStep&) = delete;
    GivenStep& operator=(const GivenStep&) = delete;

    const Draws& draws() const { return draws_; }

  private:
    SpionPassState state_;
    Draws draws_;
};

}  // namespace spion
