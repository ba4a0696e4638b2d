// Runs what a plan has and what is not done yet, as many at once as there are places.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "tools/sweep/plan.h"
#include "tools/sweep/results.h"

namespace spion::sweep {

struct Limits {
    // A run at a time each; its GPU, or "" for no choice of one. None: nothing is run.
    std::vector<std::string> places;
    double minutes = 0;  // that all may take; 0: as long as it takes
};

struct Outcome {
    std::vector<RunResult> results;  // [runs]
    int signal = 0;                  // that ended it early
};

// say: hears of each run that begins or ends. A signal, or the end of the minutes, stops the runs at
// hand, which keep checkpoints. A run that fails ends no other.
Outcome execute(const Plan& plan, const std::filesystem::path& sweep, const Limits& limits,
                const std::function<void(std::string_view)>& say);

}  // namespace spion::sweep
