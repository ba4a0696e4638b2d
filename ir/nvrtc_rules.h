// Which release of NVRTC makes which kernels well: the one place that knows. The choice of tiles,
// `spion doctor` and errors say what stands here, and plans give what a release needs more. Found
// with tests/nvrtc_matrix.py (docs/results.md).
#pragma once

#include <string>
#include <vector>

#include "ir/target.h"
#include "ir/tile_program.h"

namespace spion {

// Older ones reject the bodies' C++ (12.0 to 12.2) or serialise the products of dQ (12.3).
constexpr CompilerRelease kOldestNvrtc{.major = 12, .minor = 4};

std::string to_text(const CompilerRelease& release);  // "12.9"

// The oldest from kOldestNvrtc on that compiles for a compute capability; kNewestNvrtc for one that
// is not known here.
CompilerRelease oldest_nvrtc_for(int compute_capability);

// What a kernel's registers depend on.
struct KernelKind {
    int compute_capability = 0;
    MatrixUnit unit = MatrixUnit::kMmaSync;
    KernelRole role = KernelRole::kForward;
    int head_dim = 0;
    int stationary_rows = 0;
    int streamed_rows = 0;
    bool packed = false;  // several block rows a tile
    bool dropout = false;
    bool spans = false;  // of the mask
};

// Why `release` makes no good kernel of that kind, as a clause with what does ("NVRTC 12.9 spills
// ..., and 13.0 does not"); "" where it makes one without spills whose products are not serialised.
// Of a release newer than kNewestNvrtc nothing is known, and nothing refused.
std::string why_nvrtc_refuses(const CompilerRelease& release, const KernelKind& kind);

// For people: all that `release` refuses, a clause a rule.
std::vector<std::string> nvrtc_refusals(const CompilerRelease& release);

// Registers that a thread of the fetching warpgroup needs on `release` beyond what the newest
// needs, a multiple of 8: without them its addresses are spilled.
int more_producer_registers(const CompilerRelease& release, const KernelKind& kind);

}  // namespace spion
