// `spion bench tiers`: kernels with the pattern in their source (tier 1) against kernels that are
// passed tables (tier 0), shape by shape.
#pragma once

#include <CLI/CLI.hpp>

namespace spion {

void add_bench_tiers(CLI::App& bench);

}  // namespace spion
