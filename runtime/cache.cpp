#include "runtime/cache.h"

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <future>
#include <mutex>
#include <system_error>
#include <unordered_map>

#include "ir/error.h"
#include "ir/sha256.h"
#include "runtime/cache_entry.h"
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

// The one line a process that says why kernels are compiled again next time.
void note_once(const std::string& reason) {
    static std::atomic_flag noted = ATOMIC_FLAG_INIT;
    if (!noted.test_and_set()) {
        say("spion: compiled kernels are not kept: {}\n", reason);
    }
}

double milliseconds_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
        .count();
}

// With SPION_VERBOSE=1, a line a lookup on stderr. It prints, so it is no part of any key.
void tell(const KernelSource& source, const CompileRequest& request, const CachedKernel& kernel) {
    if (!environment_switch("SPION_VERBOSE")) {
        return;
    }
    const char* origin = kernel.origin == CacheOrigin::kCompiled ? "compiled"
                         : kernel.origin == CacheOrigin::kDisk   ? "read from the disk cache"
                                                                 : "already in memory";
    say("spion: {} for {}: {} in {:.1f} ms, {}\n", source.name, request.arch, origin,
        kernel.milliseconds, kernel.folder.empty() ? "not on disk" : kernel.folder.string());
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
    std::once_flag swept;
    mutable std::mutex mutex;  // guards what follows
    std::unordered_map<std::string, std::shared_future<Found>> kernels;
    Counters counters;

    // Looks on disk, else compiles and keeps the result there.
    Found find(const std::string& key, const KernelSource& source, const CompileRequest& request,
               const Compile& compile) {
        const fs::path folder = root ? *root / entry_folder_name(source.name, key) : fs::path();
        if (root) {
            if (std::optional<KernelBinary> kept = read_entry(folder, key)) {
                return {std::make_shared<KernelBinary>(std::move(*kept)), CacheOrigin::kDisk,
                        folder};
            }
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
            return true;
        } catch (const std::system_error& error) {
            note_once(
                fmt::format("cache folder {} cannot be written ({}); set SPION_CACHE_DIR to "
                            "one that can",
                            root->string(), error.code().message()));
            return false;
        }
    }
};

KernelCache::KernelCache(std::optional<fs::path> root) : state_(std::make_unique<State>()) {
    state_->root = std::move(root);
}

KernelCache::~KernelCache() = default;

const std::optional<fs::path>& KernelCache::root() const {
    return state_->root;
}

std::optional<fs::path> KernelCache::default_root() {
    if (const auto folder = environment_value("SPION_CACHE_DIR")) {
        return fs::absolute(*folder);
    }
    if (const auto folder = environment_value("XDG_CACHE_HOME");
        folder && fs::path(*folder).is_absolute()) {
        return fs::path(*folder) / "spion";
    }
    if (const auto folder = environment_value("HOME")) {
        return fs::path(*folder) / ".cache" / "spion";
    }
    return std::nullopt;
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

std::optional<fs::path> KernelCache::checked_root() {
    std::optional<fs::path> root = default_root();
    if (!root) {
        note_once("none of SPION_CACHE_DIR, XDG_CACHE_HOME and HOME is set");
    } else if (environment_value("SPION_CACHE_DIR")) {
        if (const auto problem = problem_with(*root)) {
            throw UserError(
                "SPION_CACHE_DIR names {}, which cannot be written ({}): set it to a folder that "
                "can, or unset it",
                root->string(), *problem);
        }
    }
    return root;
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
            // Whoever waits hears of it; whoever comes later tries again.
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
    tell(source, request, kernel);
    const std::lock_guard lock(state_->mutex);
    switch (kernel.origin) {
        case CacheOrigin::kCompiled:
            ++state_->counters.compiled;
            break;
        case CacheOrigin::kDisk:
            ++state_->counters.from_disk;
            break;
        case CacheOrigin::kMemory:
            ++state_->counters.from_memory;
            break;
    }
    return kernel;
}

KernelCache::Counters KernelCache::counters() const {
    const std::lock_guard lock(state_->mutex);
    return state_->counters;
}

}  // namespace spion
