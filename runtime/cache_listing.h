// The disk cache (runtime/cache.h) as a list of entries, for people who look after it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace spion {

struct CacheEntry {
    std::filesystem::path folder;
    std::string name, key;       // the two parts of the folder's name
    std::string problem;         // why a lookup would miss it; empty: it is whole
    std::string arch, compiler;  // these and compile_ms: of the manifest, where it can be read
    double compile_ms = 0;
    std::uintmax_t bytes = 0;   // of all files in the folder
    double age_seconds = 0;     // since it was written
    double unused_seconds = 0;  // since it was last used
};

// What pruning goes by; no file of the entry is read for it.
struct EntryUse {
    std::filesystem::path folder;
    std::uintmax_t bytes = 0;
    double unused_seconds = 0;
};
// As list_entries.
std::vector<EntryUse> entry_uses(const std::filesystem::path& root);

// Entries are folders named <name>.<32 hex digits> that hold something a kernel's folder holds;
// whatever else lies in `root` is foreign and not listed. Sorted by folder. Empty when there is no
// such folder. Throws DeviceError when it cannot be read.
std::vector<CacheEntry> list_entries(const std::filesystem::path& root);

// What is wrong with an entry, found by computing everything again: the digest of its binary, and
// its key from its sources and manifest. Empty: nothing. Each entry is read in full.
std::string verify_entry(const CacheEntry& entry);

// Removes the entries and what dead processes left half-written, and nothing else; how many entries
// that was. Throws DeviceError when one cannot be removed.
std::size_t clear_entries(const std::filesystem::path& root);

}  // namespace spion
