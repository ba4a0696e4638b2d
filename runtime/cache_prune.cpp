#include "runtime/cache_prune.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <system_error>
#include <vector>

#include "ir/error.h"
#include "runtime/cache_entry.h"
#include "runtime/cache_listing.h"

namespace spion {
namespace {

namespace fs = std::filesystem;

// False: another process was first.
bool take_away(const fs::path& folder) {
    try {
        return remove_entry(folder);
    } catch (const std::system_error& error) {
        throw DeviceError("{} cannot be removed: {}", folder.string(), error.code().message());
    }
}

}  // namespace

Pruned prune_entries(const fs::path& root, const PruneRules& rules) {
    std::vector<EntryUse> entries = entry_uses(root);
    std::stable_sort(entries.begin(), entries.end(), [](const EntryUse& a, const EntryUse& b) {
        return a.unused_seconds > b.unused_seconds;
    });
    Pruned pruned{.kernels_left = entries.size()};
    for (const EntryUse& entry : entries) {
        pruned.bytes_left += entry.bytes;
    }
    for (const EntryUse& entry : entries) {
        const bool old = rules.unused_seconds && entry.unused_seconds > *rules.unused_seconds;
        const bool much = rules.bytes && pruned.bytes_left > *rules.bytes;
        if ((!old && !much) || entry.folder == rules.spare) {
            continue;
        }
        if (take_away(entry.folder)) {
            ++pruned.kernels;
            pruned.bytes += entry.bytes;
        }
        --pruned.kernels_left;  // by whomever
        pruned.bytes_left -= entry.bytes;
    }
    remove_abandoned(root);
    return pruned;
}

void note_use(const fs::path& folder) {
    utimensat(AT_FDCWD, (folder / kManifest).c_str(), nullptr, 0);
}

}  // namespace spion
