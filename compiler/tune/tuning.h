// What autotuning (compiler/tune/autotune.h) has found, kept in the cache folder, one file a
// problem:
//     <root>/tuning/<key>.txt
// A line a fact, the digest of them all at the end: a damaged, truncated or foreign file is a miss.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "compiler/passes/pass.h"

namespace spion {

struct Tuning {
    TileShape shape = {};
    double milliseconds = 0;  // median of one launch
    // For people: kernel and device that it was measured with, and B.
    std::string kernel, device;
    std::int64_t batch = 1;
    bool from_cache = false;  // measured earlier
};

std::filesystem::path tuning_file(const std::filesystem::path& root, const std::string& key);
// nullopt for anything but a whole entry of this key; `problem`, unless null, then says why.
std::optional<Tuning> read_tuning(const std::filesystem::path& file, const std::string& key,
                                  std::string* problem = nullptr);
// Writes aside and renames, and gives up silently: that costs time, never a failure.
void write_tuning(const std::filesystem::path& file, const std::string& key, const Tuning& tuning);

struct TuningEntry {
    std::filesystem::path file;
    std::string key;
    std::string problem;  // why a lookup would miss it; empty: it is whole
    Tuning tuning;        // where it is whole
    std::uintmax_t bytes = 0;
    double age_seconds = 0;  // since it was written
};
// The files of <root>/tuning that have an entry's name; whatever else lies there is foreign. Sorted
// by key. Empty when there is no such folder. Throws DeviceError when it cannot be read.
std::vector<TuningEntry> list_tunings(const std::filesystem::path& root);
// Removes the entries and what dead processes left half-written, and the folder when nothing else
// is in it; how many entries that was. Throws DeviceError when one cannot be removed.
std::size_t clear_tunings(const std::filesystem::path& root);

}  // namespace spion
