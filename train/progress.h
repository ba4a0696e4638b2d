// What training says while it runs: on a terminal one line that is redrawn, otherwise a plain line
// now and then. Everything goes to stderr; stdout stays free for results.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

#include "train/metrics.h"

namespace spion {

struct ProgressState {
    Phase phase = Phase::kDense;
    std::int64_t step = 0;
    std::int64_t total_steps = 0;
    double loss = 0;      // mean of the latest steps
    double accuracy = 0;  // of the latest steps
    double step_ms = 0;   // of the latest steps; 0 when unknown
};

// "dense [====>     ] 120/30000  loss 2.210  accuracy 18.2 %  23.1 steps/s  ETA 21:34"
std::string progress_text(const ProgressState& state, int bar_width);
// "1:02:03", "21:34"
std::string duration_text(double seconds);

class Progress {
  public:
    Progress(std::FILE* stream, bool terminal);
    ~Progress();  // ends a line left open

    // Draws at most every 0.1 s on a terminal, every 10 s otherwise; `force` draws at once.
    void update(const ProgressState& state, bool force = false);
    // A line of its own, above the progress line on a terminal. May hold newlines.
    void say(std::string_view text);

  private:
    void clear();
    std::FILE* stream_;
    bool terminal_;
    bool drawn_ = false;
    std::chrono::steady_clock::time_point last_{};
};

}  // namespace spion
