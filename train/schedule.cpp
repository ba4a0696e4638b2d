#include "train/schedule.h"

#include <algorithm>
#include <cmath>

#include "ir/error.h"

namespace spion {
namespace {

constexpr double kInitialDivisor = 25.0;
constexpr double kFinalDivisor = 1e4;  // of the initial rate

// The line through (from, a) and (to, b) at `step`; b where the two points coincide.
double line(double step, double from, double to, double a, double b) {
    return to > from ? std::lerp(a, b, (step - from) / (to - from)) : b;
}

}  // namespace

OneCycleSchedule::OneCycleSchedule(double peak, std::int64_t total_steps, double warmup_fraction)
    : peak_(peak),
      total_steps_(total_steps),
      peak_step_(warmup_fraction * static_cast<double>(total_steps) - 1.0) {
    if (total_steps < 1) throw UserError("a schedule of {} steps: use at least 1", total_steps);
    if (!(warmup_fraction >= 0.0 && warmup_fraction <= 1.0)) {
        throw UserError("a warm-up of {} of the steps: it must lie in [0, 1]", warmup_fraction);
    }
}

double OneCycleSchedule::at(std::int64_t step) const {
    const double initial = peak_ / kInitialDivisor;
    const auto last = static_cast<double>(total_steps_ - 1);
    const double position = std::min(static_cast<double>(step), last);
    if (position <= peak_step_) return line(position, 0.0, peak_step_, initial, peak_);
    return line(position, peak_step_, last, peak_, initial / kFinalDivisor);
}

}  // namespace spion
