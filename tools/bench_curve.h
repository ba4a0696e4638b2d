// `spion bench curve`: time against density for each block, and where it meets dense attention.
#pragma once

#include <CLI/CLI.hpp>

namespace spion {

void add_bench_curve(CLI::App& bench);

}  // namespace spion
