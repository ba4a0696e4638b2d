// Compiled kernels, kept in memory and on disk. A disk entry is a folder
//     <root>/<name>.<digest>/
//         kernel.cu|kernel.ll  includes  kernel.ir  kernel.cubin|kernel.o  manifest.json
//         rebuild.sh (makes the binary again, without spion)
// written aside, synced and renamed into place, so that a reader sees a whole entry or none; with
// several processes at once the first rename wins and the others use it. The manifest holds the
// digest of the binary: a damaged, truncated, foreign or half-written entry is a miss and is
// rebuilt; that shows damage, not origin, so folders of others are refused (cache_folders.h). A
// cache folder that cannot be read or written costs time, never a failure; one line on
// stderr says so.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ir/error.h"
#include "ir/kernel_source.h"
#include "ir/target.h"
#include "runtime/bundle.h"
#include "runtime/cache_folders.h"

namespace spion {

// 32 hex digits over every field of the request, each with its name and length.
std::string cache_key(const CompileRequest& request);

enum class CacheOrigin { kCompiled, kDisk, kMemory, kBundle };

struct CachedKernel {
    std::shared_ptr<const KernelBinary> binary;
    CacheOrigin origin = CacheOrigin::kCompiled;
    double milliseconds = 0;       // what this lookup cost, compilation included
    std::filesystem::path folder;  // the disk entry; empty when the disk cache is off
};

class KernelCache {
  public:
    // Whoever hears what became of lookups. warning: of something that costs time.
    using Log = std::function<void(bool warning, const std::string& line)>;
    // nullopt: memory only. Without a log, lines go to stderr: warnings once a process, the others
    // with SPION_VERBOSE in the environment.
    explicit KernelCache(std::optional<std::filesystem::path> root,
                         std::shared_ptr<const Bundle> bundle = nullptr, Log log = nullptr);
    // Looks into the read-only folders too, and keeps the limit.
    explicit KernelCache(const CacheFolders& folders,
                         std::shared_ptr<const Bundle> bundle = nullptr, Log log = nullptr);
    ~KernelCache();
    // Those that are only read, in the order in which they are looked into.
    const std::vector<std::filesystem::path>& read_only() const;
    const std::optional<std::filesystem::path>& root() const;

    // Where cache_folders() keeps what is compiled.
    static std::optional<std::filesystem::path> default_root();
    // cache_folders() for a command. Throws UserError when $SPION_CACHE_DIR names a folder that
    // can be neither created, written nor read, or that is not to be trusted (why_not_trusted):
    // whoever names a folder means it. One that can only be read is read. The usual folders, where
    // they cannot be used, only cost time, and a warning.
    static CacheFolders checked_folders(const Log& log = nullptr);
    // Where these keep what is compiled.
    static std::optional<std::filesystem::path> checked_root();
    // Why no entry can be written below `root` ("Permission denied"), which is created if need be;
    // nullopt when one can.
    static std::optional<std::string> problem_with(const std::filesystem::path& root);

    using Compile = std::function<KernelBinary(const CompileRequest&)>;
    // Thread-safe; two threads asking for one key compile once. `source` gives name and ir for the
    // entry; `request` alone decides the key and is all that `compile` sees.
    CachedKernel get(const KernelSource& source, const CompileRequest& request,
                     const Compile& compile);

    // What the bundle has of it, which needs no compiler to be asked for; nullopt when there is no
    // bundle, or no such kernel in it. Throws as Bundle::find. Thread-safe.
    std::optional<CachedKernel> find_in_bundle(const KernelSource& source, const Target& target);

    // The target to choose kernels for: of the bundle, where it has this one's (Bundle).
    Target as_compiled_for(const Target& target) const;

    // Tells whoever hears of lookups.
    void warn(const std::string& line) const;

    // While set, a kernel that is found nowhere throws FrozenError instead of being compiled.
    void freeze(bool frozen);
    bool frozen() const;
    // The error of a frozen cache that lacks this kernel.
    FrozenError frozen_error(const KernelSource& source, const std::string& arch) const;

    struct Counters {
        int compiled = 0, from_disk = 0, from_memory = 0, from_bundle = 0;
    };
    Counters counters() const;

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace spion
