// Where compiled kernels and tunings lie, and whether what lies there may be run.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace spion {

struct CacheFolders {
    std::optional<std::filesystem::path> kept = {};     // what is compiled goes here
    std::vector<std::filesystem::path> read_only = {};  // are looked into after it, in order
    // Above so many bytes the kernels that were not used for longest are removed from `kept`; 0:
    // never.
    std::uintmax_t limit = 0;
};

// $SPION_CACHE_DIR, folders with ':' between them, of which the first keeps and the others are only
// read; else $XDG_CACHE_HOME/spion, else $HOME/.cache/spion, else none. A relative $XDG_CACHE_HOME
// counts as unset, as its specification asks. The limit is $SPION_CACHE_LIMIT. Throws UserError for
// a limit that is no size.
CacheFolders cache_folders();

// What lies in a cache folder is executed. Why one is not to be trusted, as a clause after its name:
// it belongs to neither this process's user nor root, or its group or others may write in it; or they
// could put another in its place, because one of those holds for a folder on the way to it from /
// (which others may write if it is sticky, as /tmp is, and a group if that is the user's alone) or the
// owner holds for a link on that way.
// nullopt for one that may be, and for one that is not there on a way that may be. With
// SPION_CACHE_TRUST=1 every folder may be.
std::optional<std::string> why_not_trusted(const std::filesystem::path& folder);

// "500M", "2.5G", "1073741824": a number and K, M, G or T for powers of 1024. Throws UserError that
// begins with `origin` for anything else.
std::uintmax_t parse_size(std::string_view text, std::string_view origin);

}  // namespace spion
