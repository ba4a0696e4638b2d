// `spion bench predicted`: the cost model against the clock.
#pragma once

#include <CLI/CLI.hpp>

namespace spion {

void add_bench_predicted(CLI::App& bench);

}  // namespace spion
