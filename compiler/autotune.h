// Measures the tile shapes that the cost model ranks best on the device at hand. What it finds is
// kept in the cache folder, one file a problem:
//     <root>/tuning/<key>.txt
// The key is made of the candidates' compile requests, the pattern, the batch and the device's
// name, so that a change of any of them, or of a kernel's body, measures afresh. A damaged,
// truncated or foreign file is a miss.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "compiler/tile_candidates.h"
#include "runtime/cache.h"
#include "runtime/device.h"

namespace spion {

struct AutotuneOptions {
    std::int64_t batch = kPlannedBatch;  // B that is measured
    int candidates = 4;                  // that are compiled and measured
    int repeat = 7;                      // measurements that a median is taken of
};

struct Tuning {
    TileShape shape = {};
    double milliseconds = 0;  // median of one launch
    bool from_cache = false;  // measured earlier
};

// Throws as choose_tiles does, and DeviceError when the device has no room for the tensors.
Tuning autotune(const Attention& attention, const BlockPattern& pattern, KernelRole role,
                Device& device, KernelCache& cache, const AutotuneOptions& options = {});

// An entry's file. read_tuning gives nullopt for anything but a whole entry of this key;
// write_tuning writes aside and renames, and gives up silently: that costs time, never a failure.
std::optional<Tuning> read_tuning(const std::filesystem::path& file, const std::string& key);
void write_tuning(const std::filesystem::path& file, const std::string& key, const Tuning& tuning);

}  // namespace spion
