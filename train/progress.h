// What training says while it runs: on a terminal one line that is redrawn, otherwise a plain line
// now and then. Everything goes to stderr; stdout stays free for results.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "runtime/output.h"
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
// The most of it that `columns` hold: a shorter bar, then none, then fewer figures.
std::string fitted_progress_text(const ProgressState& state, int columns);
// "1:02:03", "21:34"
std::string duration_text(double seconds);

class Progress {
  public:
    using Write = std::function<void(std::string_view)>;
    using AskTerminal = std::function<Terminal()>;

    // Writes to standard error; or as a test wants it.
    Progress();
    Progress(Write write, AskTerminal terminal);
    ~Progress();  // ends a line left open

    // Draws at most every 0.1 s on a terminal that redraws, else a line every 10 s; `force` draws
    // at once. On a terminal no line is as long as it is wide, since a wrapped one stays.
    void update(const ProgressState& state, bool force = false);
    // A line of its own, above the progress line on a terminal. May hold newlines.
    void say(std::string_view text);
    // Of a picture that is said (runtime/output.h).
    int picture_columns() const { return spion::picture_columns(terminal_()); }

  private:
    void clear();
    Write write_;
    AskTerminal terminal_;
    bool drawn_ = false;
    std::chrono::steady_clock::time_point last_{};
};

}  // namespace spion
