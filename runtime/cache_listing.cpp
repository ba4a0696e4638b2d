#include "runtime/cache_listing.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <system_error>

#include "ir/error.h"
#include "runtime/cache.h"
#include "runtime/cache_entry.h"
#include "runtime/whole_file.h"

namespace spion {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::size_t kKeyDigits = 32;

bool is_key(std::string_view text) {
    return text.size() == kKeyDigits &&
           text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// "" for what cannot be read: an entry's digests then say what is wrong.
std::string read_text(const fs::path& path) {
    return read_whole_file(path, kLargestKeptText).value_or("");
}

bool is_entry(const fs::path& folder) {
    const std::string name = folder.filename().string();
    std::error_code ignored;
    if (name.size() <= kKeyDigits + 1 || name[name.size() - kKeyDigits - 1] != '.' ||
        !is_key(std::string_view(name).substr(name.size() - kKeyDigits)) ||
        fs::symlink_status(folder, ignored).type() != fs::file_type::directory) {
        return false;
    }
    return std::any_of(std::begin(kEntryFiles), std::end(kEntryFiles),
                       [&](const char* file) { return fs::exists(folder / file, ignored); });
}

// What may be left of an entry whose writer died.
bool is_aside(const fs::path& folder) {
    std::error_code ignored;
    const std::string name = folder.filename().string();
    constexpr std::size_t kRandom = 6;  // characters that mkdtemp fills in
    return name.starts_with(kAsidePrefix) && name.size() == kAsidePrefix.size() + kRandom &&
           fs::symlink_status(folder, ignored).type() == fs::file_type::directory;
}

std::vector<fs::path> items_in(const fs::path& root) {
    std::vector<fs::path> items;
    std::error_code error;
    if (!fs::exists(root, error)) {
        return items;
    }
    for (fs::directory_iterator item(root, error), end; !error && item != end;
         item.increment(error)) {
        items.push_back(item->path());
    }
    if (error) {
        throw DeviceError("the cache folder {} cannot be read: {}", root.string(), error.message());
    }
    std::sort(items.begin(), items.end());
    return items;
}

// 0 for what vanishes meanwhile: other processes use the cache too.
std::uintmax_t bytes_in(const fs::path& folder) {
    std::uintmax_t bytes = 0;
    std::error_code error;
    for (fs::recursive_directory_iterator item(folder, error), end; !error && item != end;
         item.increment(error)) {
        std::error_code ignored;
        const std::uintmax_t size = item->is_regular_file(ignored) ? item->file_size(ignored) : 0;
        bytes += ignored ? 0 : size;
    }
    return bytes;
}

double seconds_since(const fs::path& path) {
    std::error_code error;
    const auto written = fs::last_write_time(path, error);
    if (error) {
        return 0;
    }
    const std::chrono::duration<double> age = fs::file_time_type::clock::now() - written;
    return std::max(0.0, age.count());  // a clock that went back makes no age negative
}

// A use is noted as the time of the manifest (runtime/cache_prune.h); the folder keeps that of its
// writing.
double unused_seconds(const fs::path& folder) {
    std::error_code ignored;
    const fs::path manifest = folder / kManifest;
    return seconds_since(fs::exists(manifest, ignored) ? manifest : folder);
}

CacheEntry describe(const fs::path& folder) {
    const std::string full = folder.filename().string();
    CacheEntry entry{.folder = folder,
                     .name = full.substr(0, full.size() - kKeyDigits - 1),
                     .key = full.substr(full.size() - kKeyDigits),
                     .problem = {},
                     .arch = {},
                     .compiler = {},
                     .bytes = bytes_in(folder),
                     .age_seconds = seconds_since(folder),
                     .unused_seconds = unused_seconds(folder)};
    read_entry(folder, entry.key, &entry.problem);
    const json manifest = json::parse(read_text(folder / kManifest), nullptr, false);
    if (manifest.is_object()) {
        const auto text = [&](const char* field) {
            const auto found = manifest.find(field);
            return found != manifest.end() && found->is_string() ? found->get<std::string>() : "";
        };
        entry.arch = text("arch");
        entry.compiler = text("compiler");
        const auto found = manifest.find("compile_ms");
        entry.compile_ms = found != manifest.end() && found->is_number() ? found->get<double>() : 0;
    }
    return entry;
}

}  // namespace

std::vector<CacheEntry> list_entries(const fs::path& root) {
    std::vector<CacheEntry> entries;
    for (const fs::path& item : items_in(root)) {
        if (is_entry(item)) {
            entries.push_back(describe(item));
        }
    }
    return entries;
}

std::vector<EntryUse> entry_uses(const fs::path& root) {
    std::vector<EntryUse> uses;
    for (const fs::path& item : items_in(root)) {
        if (is_entry(item)) {
            uses.push_back(
                {.folder = item, .bytes = bytes_in(item), .unused_seconds = unused_seconds(item)});
        }
    }
    return uses;
}

std::string verify_entry(const CacheEntry& entry) {
    std::string problem;
    if (!read_entry(entry.folder, entry.key, &problem)) {
        return problem;
    }
    try {
        const json manifest = json::parse(read_text(entry.folder / kManifest));
        const std::string source = manifest.at("source");
        if (lies_outside(source)) {
            return fmt::format("its manifest names {}, which lies outside", source);
        }
        CompileRequest request{.entry = manifest.at("entry"),
                               .text = read_text(entry.folder / source),
                               .includes = {},
                               .arch = manifest.at("arch"),
                               .features = manifest.at("features"),
                               .options = manifest.at("options"),
                               .compiler = manifest.at("compiler")};
        for (const std::string name : manifest.at("includes")) {
            if (lies_outside(name)) {
                return fmt::format("its manifest names {}, which lies outside", name);
            }
            request.includes.push_back({.name = name, .text = read_text(entry.folder / name)});
        }
        return cache_key(request) == entry.key
                   ? ""
                   : "its source, includes or options are not those that its key was made from";
    } catch (const json::exception& error) {
        return fmt::format("its manifest lacks a field: {}", error.what());
    }
}

std::size_t clear_entries(const fs::path& root) {
    std::size_t removed = 0;
    for (const fs::path& item : items_in(root)) {
        const bool entry = is_entry(item);
        if (!entry && !is_aside(item)) {
            continue;
        }
        std::error_code error;
        fs::remove_all(item, error);
        if (error) {
            throw DeviceError("{} cannot be removed: {}; {} entries were", item.string(),
                              error.message(), removed);
        }
        removed += entry ? 1 : 0;
    }
    return removed;
}

}  // namespace spion
