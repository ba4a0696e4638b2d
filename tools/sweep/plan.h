// A sweep: one training for each combination of task, arm, learning rate and seed, as a TOML file
// lists them (docs/guide/sweeps.md).
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "train/settings.h"

namespace spion::sweep {

struct Run {
    std::string task, arm, rate;  // rate: as the file has it; "" for the task's own
    std::string seed;
    std::string name;                                        // "listops-cf-seed0", of its folder
    std::vector<std::pair<std::string, std::string>> flags;  // of spion train, by their names
    // A fixed pattern without a density of its own: it takes the mean one of these runs.
    std::string density_of;  // their arm; "" for none
    TrainSettings settings;  // that these flags make
};

struct Plan {
    std::vector<Run> runs;  // those whose density others take come first
    std::string text;       // of the file
};

// Throws UserError, with file, line and column, for what the file may not hold, and for settings that
// no training takes.
Plan read_plan(const std::filesystem::path& file);

// The arms that need no table of their own: dense; cf, c and f; and the fixed patterns.
std::vector<std::string> known_arms();

}  // namespace spion::sweep
