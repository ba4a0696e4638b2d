#include "train/run_folder.h"

#include <unistd.h>
#include <algorithm>
#include <cmath>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "ir/error.h"
#include "ir/sha256.h"
#include "runtime/atomic_file.h"
#include "runtime/offline.h"

namespace spion {
namespace {

namespace fs = std::filesystem;

constexpr const char* kRanks = "ranks";  // where processes meet
constexpr std::string_view kMend = "free some space or name another --out folder";

// `path` itself or its nearest ancestor that exists.
fs::path nearest_existing(fs::path path) {
    std::error_code ignored;
    path = fs::absolute(path, ignored).lexically_normal();
    while (!fs::exists(path, ignored) && path.has_parent_path() && path != path.parent_path()) {
        path = path.parent_path();
    }
    return path;
}

// Other than what a killed process left before its files had their names, and what processes have
// where they meet before a run begins. True where that cannot be told.
bool holds_files(const fs::path& folder) {
    std::error_code error;
    for (fs::directory_iterator item(folder, error), end; !error && item != end;
         item.increment(error)) {
        if (!is_unfinished(item->path()) && item->path().filename() != kRanks) return true;
    }
    return static_cast<bool>(error);
}

std::string_view origin_name(CacheOrigin origin) {
    switch (origin) {
        case CacheOrigin::kCompiled:
            return "compiled";
        case CacheOrigin::kDisk:
            return "disk";
        case CacheOrigin::kBundle:
            return "bundle";
        case CacheOrigin::kMemory:
            return "memory";
    }
    throw InternalError("cache origin {} has no name", static_cast<int>(origin));
}

std::string kernel_json(const JitKernel& kernel, BackEnd back_end) {
    const KernelBinary& binary = *kernel.cached.binary;
    nlohmann::ordered_json json{{"name", kernel.source.name},
                                {"entry", kernel.source.entry},
                                {"binary_bytes", binary.code.size()},
                                {"compile_ms", binary.compile_ms},
                                {"origin", origin_name(kernel.cached.origin)},
                                {"lookup_ms", kernel.cached.milliseconds}};
    if (back_end == BackEnd::kCuda) {
        json["registers"] = binary.registers;
        json["static_shared_bytes"] = binary.static_shared_bytes;
        json["spill_bytes"] = binary.spill_bytes;
    }
    return json.dump(2) + "\n";
}

// The heads' patterns in the form of `spion discover --per-head --format json`.
std::string patterns_json(const HeadPatterns& patterns) {
    nlohmann::ordered_json all = nlohmann::ordered_json::array();
    for (int head = 0; head < patterns.count(); ++head) {
        const BlockPattern& pattern = patterns[head];
        nlohmann::ordered_json rows = nlohmann::ordered_json::array();
        const std::string bits = pattern.to_bits();
        for (std::size_t at = 0; at < bits.size(); at += pattern.columns() + std::size_t{1}) {
            rows.push_back(bits.substr(at, static_cast<std::size_t>(pattern.columns())));
        }
        all.push_back({{"map", std::to_string(head)},
                       {"block", pattern.block()},
                       {"length", pattern.length()},
                       {"density", pattern.density()},
                       {"pattern", std::move(rows)}});
    }
    return all.dump(2) + "\n";
}

// Lines of so many numbers.
std::string map_text(std::span<const double> map, std::size_t columns) {
    std::string text;
    for (std::size_t i = 0; i < map.size(); ++i) {
        text += fmt::format("{:.9g}{}", map[i], (i + 1) % columns == 0 ? '\n' : ',');
    }
    return text;
}

}  // namespace

void check_run_folder(const fs::path& path) {
    if (path.empty()) throw UserError("--out is empty; name a new folder for the run");
    std::error_code error;
    if (fs::exists(path, error)) {
        if (!fs::is_directory(path, error)) {
            throw UserError("--out {} is a file; name a new folder for the run", path.string());
        }
        if (holds_files(path)) {
            throw UserError("--out {} is not empty; name a new folder, or remove it first",
                            path.string());
        }
    }
    const fs::path parent = nearest_existing(path);
    if (!fs::is_directory(parent, error)) {
        throw UserError("--out {} cannot be created: {} is no folder; name another", path.string(),
                        parent.string());
    }
    if (::access(parent.c_str(), W_OK | X_OK) != 0) {
        throw UserError("--out {} cannot be written: {}: {}; name another folder", path.string(),
                        parent.string(), std::strerror(errno));
    }
}

RunFolder::RunFolder(const fs::path& path) : path_(path) {
    check_run_folder(path);
    std::error_code error;
    fs::create_directories(path, error);
    if (error) {
        throw UserError("--out {} cannot be created: {}; name another folder", path.string(),
                        error.message());
    }
}

RunFolder RunFolder::of_run(const fs::path& path) {
    std::error_code error;
    if (!fs::is_regular_file(path / "config.toml", error)) {
        throw UserError(
            "{} is no folder of a run, as it has no config.toml: name one that `spion train --out` "
            "made",
            path.string());
    }
    return {path, Existing{}};
}

RunFolder RunFolder::of_another(const fs::path& path) {
    RunFolder folder(path, Existing{});
    folder.written_ = false;
    return folder;
}

void RunFolder::write(const fs::path& relative, std::string_view bytes) const {
    const NamedBytes file{.path = path_ / relative, .bytes = bytes};
    write({&file, 1});
}

void RunFolder::write(std::span<const NamedBytes> files) const {
    if (written_) write_files(files, kMend);
}

void RunFolder::write_config(std::string_view toml) {
    write("config.toml", toml);
}

void RunFolder::write_device(std::string_view json) {
    write("device.json", json);
}

void RunFolder::write_patterns(int layer, const HeadPatterns& patterns,
                               std::span<const std::vector<double>> pooled) {
    const fs::path folder = "patterns";
    const bool shared = patterns.count() == 1;
    write(folder / fmt::format("layer{}.{}", layer, shared ? "bits" : "json"),
          shared ? patterns.front().to_bits() : patterns_json(patterns));
    if (pooled.size() != static_cast<std::size_t>(patterns.count())) return;  // not found in these
    for (std::size_t head = 0; head < pooled.size(); ++head) {
        write(folder / (shared ? fmt::format("layer{}.csv", layer)
                               : fmt::format("layer{}.head{}.csv", layer, head)),
              map_text(pooled[head], static_cast<std::size_t>(patterns.rows())));
    }
}

void RunFolder::write_map(int layer, std::int64_t step, std::span<const double> pooled) {
    constexpr std::size_t kMost = 64;  // rows: for looking at, and there is a map every evaluation
    const auto blocks = static_cast<std::size_t>(std::llround(std::sqrt(pooled.size())));
    const std::size_t cell = (blocks + kMost - 1) / kMost;
    std::string text;
    for (std::size_t row = 0; row < blocks; row += cell) {
        for (std::size_t column = 0; column < blocks; column += cell) {
            double sum = 0;
            int count = 0;
            for (std::size_t r = row; r < std::min(row + cell, blocks); ++r) {
                for (std::size_t c = column; c < std::min(column + cell, blocks); ++c, ++count) {
                    sum += pooled[r * blocks + c];
                }
            }
            text += fmt::format("{}{:.6g}", column == 0 ? "" : ",", sum / count);
        }
        text += '\n';
    }
    write(fs::path("maps") / fmt::format("layer{}-step{:08}.csv", layer, step), text);
}

void RunFolder::write_kernel(const JitKernel& kernel, BackEnd back_end) {
    std::string name = kernel.source.name;
    const auto known = kernels_.find(name);
    if (known != kernels_.end()) {
        if (known->second == kernel.source.text) return;
        name = fmt::format("{}.{}", name, digest_of(kernel.source.text).substr(0, 8));
    }
    if (!kernels_.emplace(name, kernel.source.text).second) return;
    const bool cuda = back_end == BackEnd::kCuda;
    const fs::path folder = path_ / "kernels" / name;
    const std::string report = kernel_json(kernel, back_end);
    const std::string script = rebuild_script(kernel.rebuild);
    std::vector<NamedBytes> files{
        {.path = folder / "kernel.ir", .bytes = kernel.source.ir},
        {.path = folder / (cuda ? "kernel.cu" : "kernel.ll"), .bytes = kernel.source.text},
        {.path = folder / (cuda ? "kernel.cubin" : "kernel.o"),
         .bytes = kernel.cached.binary->code},
        {.path = folder / "kernel.log", .bytes = kernel.cached.binary->log},
        {.path = folder / "report.json", .bytes = report}};
    for (const SourceFile& include : kernel.source.includes) {
        files.push_back({.path = folder / include.name, .bytes = include.text});
    }
    if (!script.empty()) {
        files.push_back({.path = folder / "rebuild.sh", .bytes = script});
    }
    write(files);
}

void RunFolder::write_summary(std::string_view json) {
    write("summary.json", json);
}

}  // namespace spion
