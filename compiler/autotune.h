// Measures the tile shapes that the cost model ranks best on the device at hand. What it finds is
// kept in the cache folder (compiler/tuning.h); the key is made of the candidates' compile
// requests, the pattern, the batch and the device's name, so that a change of any of them, or of a
// kernel's body, measures afresh.
#pragma once

#include <cstdint>
#include <optional>

#include "compiler/tile_candidates.h"
#include "compiler/tuning.h"
#include "runtime/cache.h"
#include "runtime/device.h"

namespace spion {

struct AutotuneOptions {
    std::int64_t batch = kPlannedBatch;   // B that is measured
    int candidates = 4;                   // that are compiled and measured
    int repeat = 7;                       // measurements that a median is taken of
    std::optional<int> packed_rows = {};  // block rows a tile; nothing: any number
};

// The best packed tile is one of those measured, where it is predicted to take at most kPackedReach
// times as long as the best of all: the model tells unions less well than it tells shapes.
constexpr double kPackedReach = 1.3;

// Throws as choose_tiles_for does, and DeviceError when the device has no room for the tensors.
Tuning autotune(const Attention& attention, const BlockPattern& pattern, KernelRole role,
                Device& device, KernelCache& cache, const AutotuneOptions& options = {});

}  // namespace spion
