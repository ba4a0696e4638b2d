#include "runtime/cache.h"

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <future>
#include <mutex>
#include <set>
#include <system_error>
#include <unordered_map>

#include "ir/error.h"
#include "ir/sha256.h"
#include "runtime/cache_entry.h"
#include "runtime/cache_prune.h"
#include "runtime/environment.h"
#include "runtime/output.h"

namespace spion {
namespace {

namespace fs = std::filesystem;

// Appends a field so that no two requests give one text: its name, its length, its bytes.
void append_field(std::string& text, std::string_view name, std::string_view value) {
    text += fmt::format("{} {}\n", name, value.size());
    text += value;
    text += '\n';
}

constexpr const char* kHowToTrust =
    "what lies in it would be run: name a folder of your own that only you may write, or set "
    "SPION_CACHE_TRUST=1 to take this one";

// A warning is told once a process, however many caches and kernels it concerns.
void note_once(const std::string& line) {
    static std::mutex mutex;
    static std::set<std::string> told;
    const std::lock_guard lock(mutex);
    if (told.insert(line).second) {
        say("spion: {}\n", line);
    }
}

std::string not_kept(const std::string& reason) {
    return fmt::format("compiled kernels are not kept: {}", reason);
}

double milliseconds_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
        .count();
}

const char* describe(CacheOrigin origin) {
    switch (origin) {
        case CacheOrigin::kCompiled:
            return "compiled";
        case CacheOrigin::kDisk:
            return "read from the disk cache";
        case CacheOrigin::kBundle:
            return "read from the bundle";
        case CacheOrigin::kMemory:
            return "already in memory";
    }
    throw InternalError("a kernel of origin {}", static_cast<int>(origin));
}

// A line a lookup. It tells, so it is no part of any key.
std::string line_of(const KernelSource& source, const std::string& arch,
                    const CachedKernel& kernel) {
    return fmt::format("{} for {}: {} in {:.1f} ms, {}", source.name, arch, describe(kernel.origin),
                       kernel.milliseconds,
                       kernel.folder.empty() ? "not on disk" : kernel.folder.string());
}

void print(bool warning, const std::string& line) {
    if (warning) {
        note_once(line);
    } else if (environment_switch("SPION_VERBOSE")) {
        say("spion: {}\n", line);
    }
}

// Creates the folder, for its owner alone: what lies in it is executed.
void create_root(const fs::path& root) {
    if (fs::is_directory(root)) {
        return;
    }
    if (fs::create_directories(root)) {
        fs::permissions(root, fs::perms::owner_all);
    }
}

}  // namespace

std::string cache_key(const CompileRequest& request) {
    // Taken apart, so that a field added to the request cannot be forgotten here.
    const auto& [entry, source, includes, arch, features, options, compiler] = request;
    std::string text;
    append_field(text, "entry", entry);
    append_field(text, "text", source);
    append_field(text, "includes", std::to_string(includes.size()));
    for (const auto& [name, body] : includes) {
        append_field(text, "include name", name);
        append_field(text, "include text", body);
    }
    append_field(text, "arch", arch);
    append_field(text, "features", features);
    append_field(text, "options", std::to_string(options.size()));
    for (const std::string& option : options) {
        append_field(text, "option", option);
    }
    append_field(text, "compiler", compiler);
    return digest_of(text);
}

struct KernelCache::State {
    struct Found {
        std::shared_ptr<const KernelBinary> binary;
        CacheOrigin origin = CacheOrigin::kCompiled;
        fs::path folder;
    };

    std::optional<fs::path> root;
    std::vector<fs::path> read_only;
    std::uintmax_t limit = 0;  // bytes below `root`; 0: none
    std::shared_ptr<const Bundle> bundle;
    Log log;
    std::atomic<bool> frozen = false;
    std::once_flag swept;
    mutable std::mutex mutex;  // guards what follows
    std::unordered_map<std::string, std::shared_future<Found>> kernels;
    Counters counters;

    FrozenError frozen_error(const KernelSource& source, const std::string& arch) const {
        return FrozenError(
            "{} for {} is not in the cache, and a frozen context compiles nothing: compile it "
            "before, or open a bundle that has it{}",
            source.name, arch,
            bundle ? fmt::format(" ({} has {})", bundle->path().string(), bundle->targets()) : "");
    }

    // Logs and counts a lookup.
    void count(const KernelSource& source, const std::string& arch, const CachedKernel& kernel) {
        log(false, line_of(source, arch, kernel));
        const std::lock_guard lock(mutex);
        switch (kernel.origin) {
            case CacheOrigin::kCompiled:
                ++counters.compiled;
                break;
            case CacheOrigin::kDisk:
                ++counters.from_disk;
                break;
            case CacheOrigin::kMemory:
                ++counters.from_memory;
                break;
            case CacheOrigin::kBundle:
                ++counters.from_bundle;
                break;
        }
    }

    // Looks on disk, else compiles and keeps the result there.
    Found find(const std::string& key, const KernelSource& source, const CompileRequest& request,
               const Compile& compile) {
        const std::string name = entry_folder_name(source.name, key);
        const fs::path folder = root ? *root / name : fs::path();
        if (root) {
            if (std::optional<KernelBinary> kept = read_entry(folder, key)) {
                note_use(folder);
                return {std::make_shared<KernelBinary>(std::move(*kept)), CacheOrigin::kDisk,
                        folder};
            }
        }
        for (const fs::path& layer : read_only) {
            if (std::optional<KernelBinary> baked = read_entry(layer / name, key)) {
                return {std::make_shared<KernelBinary>(std::move(*baked)), CacheOrigin::kDisk,
                        layer / name};
            }
        }
        if (frozen) {
            throw frozen_error(source, request.arch);
        }
        auto binary = std::make_shared<const KernelBinary>(compile(request));
        const bool stored = root && store(folder, key, source, request, *binary);
        return {std::move(binary), CacheOrigin::kCompiled, stored ? folder : fs::path()};
    }

    bool store(const fs::path& folder, const std::string& key, const KernelSource& source,
               const CompileRequest& request, const KernelBinary& binary) {
        try {
            create_root(*root);
            std::call_once(swept, [this] { remove_abandoned(*root); });
            write_entry(folder, key, source, request, binary);
            if (limit > 0) {
                keep_limit(folder);
            }
            return true;
        } catch (const std::system_error& error) {
            log(true, not_kept(fmt::format("cache folder {} cannot be written ({}); set "
                                           "SPION_CACHE_DIR to one that can",
                                           root->string(), error.code().message())));
            return false;
        }
    }

    // What was just made stays, even where it alone is above the limit.
    void keep_limit(const fs::path& made) {
        try {
            prune_entries(*root, {.bytes = limit, .spare = made});
        } catch (const DeviceError& error) {
            log(true, fmt::format("the limit of {} bytes is not kept: {}", limit, error.what()));
        }
    }
};

KernelCache::KernelCache(std::optional<fs::path> root, std::shared_ptr<const Bundle> bundle,
                         Log log)
    : state_(std::make_unique<State>()) {
    state_->root = std::move(root);
    state_->bundle = std::move(bundle);
    state_->log = log ? std::move(log) : Log(print);
}

KernelCache::KernelCache(const CacheFolders& folders, std::shared_ptr<const Bundle> bundle, Log log)
    : KernelCache(folders.kept, std::move(bundle), std::move(log)) {
    state_->read_only = folders.read_only;
    state_->limit = folders.limit;
}

KernelCache::~KernelCache() = default;

const std::optional<fs::path>& KernelCache::root() const {
    return state_->root;
}

const std::vector<fs::path>& KernelCache::read_only() const {
    return state_->read_only;
}

std::optional<fs::path> KernelCache::default_root() {
    return cache_folders().kept;
}

std::optional<std::string> KernelCache::problem_with(const fs::path& root) {
    try {
        create_root(root);
    } catch (const std::system_error& error) {
        return error.code().message();
    }
    // Asked by writing: permissions alone do not tell of a read-only or full file system.
    std::string probe = (root / "tmp.XXXXXX").string();
    const int file = mkstemp(probe.data());
    if (file < 0) {
        return std::generic_category().message(errno);
    }
    const bool written = write(file, "?", 1) == 1;
    std::string reason = written ? "" : std::generic_category().message(errno);
    close(file);
    unlink(probe.c_str());
    return written ? std::nullopt : std::optional(std::move(reason));
}

CacheFolders KernelCache::checked_folders(const Log& given) {
    const Log log = given ? given : Log(print);
    CacheFolders folders = cache_folders();
    const bool named = environment_value("SPION_CACHE_DIR").has_value();
    if (!named) {
        if (!folders.kept) {
            log(true, not_kept("none of SPION_CACHE_DIR, XDG_CACHE_HOME and HOME is set"));
        } else if (const auto reason = why_not_trusted(*folders.kept)) {
            log(true, not_kept(fmt::format("cache folder {} {}; {}", folders.kept->string(),
                                           *reason, kHowToTrust)));
            folders.kept.reset();
        }
        return folders;
    }
    std::vector<fs::path> all = folders.read_only;
    if (folders.kept) {
        all.insert(all.begin(), *folders.kept);
    }
    for (const fs::path& folder : all) {
        if (const auto reason = why_not_trusted(folder)) {
            throw UserError("SPION_CACHE_DIR names {}, which {}: {}", folder.string(), *reason,
                            kHowToTrust);
        }
    }
    std::error_code ignored;
    if (const auto problem = folders.kept ? problem_with(*folders.kept) : std::nullopt;
        problem && !fs::is_directory(*folders.kept, ignored)) {
        throw UserError(
            "SPION_CACHE_DIR names {}, which cannot be written ({}): set it to a folder that "
            "can, or unset it",
            folders.kept->string(), *problem);
    }
    for (const fs::path& folder : folders.read_only) {
        if (!fs::is_directory(folder, ignored)) {
            throw UserError(
                "SPION_CACHE_DIR names {} to be read, which is no folder: name one, or "
                "leave it out",
                folder.string());
        }
    }
    return folders;
}

std::optional<fs::path> KernelCache::checked_root() {
    return checked_folders().kept;
}

CachedKernel KernelCache::get(const KernelSource& source, const CompileRequest& request,
                              const Compile& compile) {
    const auto start = std::chrono::steady_clock::now();
    const std::string key = cache_key(request);
    std::promise<State::Found> promise;
    std::shared_future<State::Found> future;
    bool first = false;
    {
        const std::lock_guard lock(state_->mutex);
        const auto [item, inserted] = state_->kernels.try_emplace(key);
        if (inserted) {
            item->second = promise.get_future().share();
        }
        first = inserted;
        future = item->second;
    }
    if (first) {
        try {
            promise.set_value(state_->find(key, source, request, compile));
        } catch (...) {
            // Threads that wait for it throw the same; a later one compiles again.
            promise.set_exception(std::current_exception());
            const std::lock_guard lock(state_->mutex);
            state_->kernels.erase(key);
        }
    }
    const State::Found& found = future.get();
    CachedKernel kernel{.binary = found.binary,
                        .origin = first ? found.origin : CacheOrigin::kMemory,
                        .milliseconds = milliseconds_since(start),
                        .folder = found.folder};
    state_->count(source, request.arch, kernel);
    return kernel;
}

std::optional<CachedKernel> KernelCache::find_in_bundle(const KernelSource& source,
                                                        const Target& target) {
    if (!state_->bundle) {
        return std::nullopt;
    }
    const auto start = std::chrono::steady_clock::now();
    std::optional<KernelBinary> binary = state_->bundle->find(source, target);
    if (!binary) {
        return std::nullopt;
    }
    CachedKernel kernel{.binary = std::make_shared<const KernelBinary>(std::move(*binary)),
                        .origin = CacheOrigin::kBundle,
                        .milliseconds = milliseconds_since(start),
                        .folder = state_->bundle->path()};
    state_->count(source, target.arch, kernel);
    return kernel;
}

Target KernelCache::as_compiled_for(const Target& target) const {
    return state_->bundle ? state_->bundle->as_compiled_for(target) : target;
}

void KernelCache::warn(const std::string& line) const {
    state_->log(true, line);
}

void KernelCache::freeze(bool frozen) {
    state_->frozen = frozen;
}

bool KernelCache::frozen() const {
    return state_->frozen;
}

FrozenError KernelCache::frozen_error(const KernelSource& source, const std::string& arch) const {
    return state_->frozen_error(source, arch);
}

KernelCache::Counters KernelCache::counters() const {
    const std::lock_guard lock(state_->mutex);
    return state_->counters;
}

}  // namespace spion
