// Keeping the disk cache (runtime/cache.h) small: kernels that were not used for longest go first.
// A use is noted as the modification time of the entry's manifest.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

namespace spion {

struct PruneRules {
    std::optional<double> unused_seconds = {};        // remove what was not used for longer
    std::optional<std::uintmax_t> bytes = {};         // then, until no more than this is left
    std::optional<std::filesystem::path> spare = {};  // an entry that stays whatever its size
};

struct Pruned {
    std::size_t kernels = 0;
    std::uintmax_t bytes = 0;  // of those
    std::size_t kernels_left = 0;
    std::uintmax_t bytes_left = 0;
};

// Removes entries, and what dead processes left half-written; nothing else in the folder, tunings
// (a few hundred bytes that took long to measure) included. Safe beside processes that read, write
// and prune: an entry vanishes at once, and a reader takes that for a miss. Throws DeviceError when
// one cannot be removed.
Pruned prune_entries(const std::filesystem::path& root, const PruneRules& rules);

// Notes that an entry was used now; without effect where the folder may not be written.
void note_use(const std::filesystem::path& folder);

}  // namespace spion
