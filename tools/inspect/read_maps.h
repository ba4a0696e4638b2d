// The pooled maps of a run: what the patterns were found in, and how they came to be.
#pragma once

#include <filesystem>
#include <vector>

#include "tools/inspect/facts.h"

namespace spion::inspect {

// [blocks, blocks] of a CSV file; empty when there is none. Throws UserError that names the file and
// says what is wrong with it.
std::vector<double> read_pooled(const std::filesystem::path& file, int blocks);

// Of RUN/maps, in the order of their steps.
std::vector<MapFacts> read_history(const std::filesystem::path& folder, int layer);

}  // namespace spion::inspect
