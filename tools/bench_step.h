#pragma once

#include <CLI/CLI.hpp>

namespace spion {

// Adds `spion bench step`.
void add_bench_step(CLI::App& bench);

}  // namespace spion
