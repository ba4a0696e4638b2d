// `spion bench tiers`: kernels with the pattern in their source against kernels that are passed
// tables, shape by shape.
#pragma once

#include "runtime/device.h"

namespace spion {

// all: the long sequences among the anchors too. json: JSON, and nothing else, on standard output.
void bench_tiers(DeviceChoice device, int repeat, bool all, bool json);

}  // namespace spion
