#include "runtime/cache_entry.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cctype>
#include <chrono>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <system_error>

#include "ir/error.h"
#include "ir/sha256.h"
#include "runtime/atomic_file.h"
#include "runtime/offline.h"
#include "runtime/whole_file.h"

namespace spion {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::size_t kLongestName = 120;

bool is_cuda(const CompileRequest& request) {
    return request.compiler.starts_with("nvrtc");
}

const char* source_file(const CompileRequest& request) {
    return is_cuda(request) ? "kernel.cu" : "kernel.ll";
}

[[noreturn]] void throw_errno(const fs::path& path) {
    throw std::system_error(errno, std::generic_category(), path.string());
}

enum class Sync { kNo, kYes };

void write_file(const fs::path& path, std::string_view bytes, Sync sync) {
    fs::create_directories(path.parent_path());
    OutputFile file(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    file.append(bytes);
    if (sync == Sync::kYes) {
        file.sync();
    }
    file.close();
}

// Includes lie beside the source under their own names, so that it can be compiled by hand.
fs::path include_path(const fs::path& folder, const std::string& name) {
    if (lies_outside(name)) {
        throw InternalError("an included file is named '{}', which lies outside its folder", name);
    }
    return folder / fs::path(name).lexically_normal();
}

json manifest_of(const std::string& key, const KernelSource& source, const CompileRequest& request,
                 const KernelBinary& binary, const char* binary_file) {
    json includes = json::array();
    for (const SourceFile& file : request.includes) {
        includes.push_back(file.name);
    }
    return {{"key", key},
            {"source", source_file(request)},
            {"includes", std::move(includes)},
            {"name", source.name},
            {"entry", request.entry},
            {"arch", request.arch},
            {"features", request.features},
            {"options", request.options},
            {"compiler", request.compiler},
            {"binary", binary_file},
            {"binary_bytes", binary.code.size()},
            {"binary_digest", digest_of(binary.code)},
            {"registers", binary.registers},
            {"static_shared_bytes", binary.static_shared_bytes},
            {"spill_bytes", binary.spill_bytes},
            {"compile_ms", binary.compile_ms},
            {"log", binary.log}};
}

void fill_folder(const fs::path& folder, const std::string& key, const KernelSource& source,
                 const CompileRequest& request, const KernelBinary& binary) {
    const char* binary_file = is_cuda(request) ? "kernel.cubin" : "kernel.o";
    // What is read back is synced; the rest is for the reader.
    write_file(folder / source_file(request), request.text, Sync::kNo);
    write_file(folder / "kernel.ir", source.ir, Sync::kNo);
    for (const SourceFile& file : request.includes) {
        write_file(include_path(folder, file.name), file.text, Sync::kNo);
    }
    if (const std::string script = rebuild_script(rebuild_command(request)); !script.empty()) {
        write_file(folder / "rebuild.sh", script, Sync::kNo);
    }
    write_file(folder / binary_file, binary.code, Sync::kYes);
    // Compilers' logs may hold bytes that are not UTF-8.
    const std::string manifest = manifest_of(key, source, request, binary, binary_file)
                                     .dump(2, ' ', false, json::error_handler_t::replace);
    write_file(folder / kManifest, manifest + "\n", Sync::kYes);
    sync_folder(folder);
}

fs::path make_aside(const fs::path& root) {
    std::string pattern = (root / (std::string(kAsidePrefix) + "XXXXXX")).string();
    if (mkdtemp(pattern.data()) == nullptr) {
        throw_errno(root);
    }
    return pattern;
}

// Gives `aside` its final name. False: an undamaged entry was there first.
bool install(const fs::path& aside, const fs::path& folder, const std::string& key) {
    std::error_code error;
    fs::rename(aside, folder, error);
    if (!error) {
        return true;
    }
    if (read_entry(folder, key)) {
        return false;
    }
    // A damaged entry, or something else of that name. Moved out of the way first, because a rename
    // replaces nothing but an empty folder.
    const fs::path damaged = make_aside(folder.parent_path()) / "damaged";
    fs::rename(folder, damaged, error);
    fs::rename(aside, folder, error);
    const bool installed = !error;
    std::error_code ignored;
    fs::remove_all(damaged.parent_path(), ignored);
    if (!installed && !read_entry(folder, key)) {
        throw std::system_error(error, folder.string());
    }
    return installed;
}

}  // namespace

bool lies_outside(const std::string& name) {
    const fs::path relative = fs::path(name).lexically_normal();
    return name.empty() || relative.is_absolute() || *relative.begin() == "..";
}

std::string entry_folder_name(const std::string& name, const std::string& key) {
    std::string safe = name.substr(0, kLongestName);
    for (char& c : safe) {
        const bool allowed =
            std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_';
        c = allowed ? c : '_';
    }
    return safe + "." + key;
}

std::optional<KernelBinary> read_entry(const fs::path& folder, const std::string& key,
                                       std::string* problem) {
    const auto miss = [problem](std::string reason) -> std::optional<KernelBinary> {
        if (problem != nullptr) {
            *problem = std::move(reason);
        }
        return std::nullopt;
    };
    const std::optional<std::string> text = read_whole_file(folder / kManifest, kLargestKeptText);
    if (!text) {
        return miss("it has no manifest that can be read");
    }
    try {
        const json manifest = json::parse(*text);
        const std::string file = manifest.at("binary");
        if (manifest.at("key") != key) {
            return miss("its manifest is that of another key");
        }
        if (lies_outside(file) || fs::path(file).filename() != file) {
            return miss(fmt::format("its manifest names {}, which lies outside", file));
        }
        std::optional<std::string> code = read_whole_file(folder / file, kLargestKeptBinary);
        if (!code) {
            return miss(fmt::format("{} cannot be read", file));
        }
        const auto size = whole_number<std::size_t>(manifest.at("binary_bytes"));
        const auto registers = whole_number<int>(manifest.at("registers"));
        const auto shared_bytes = whole_number<int>(manifest.at("static_shared_bytes"));
        const auto spill_bytes = whole_number<int>(manifest.at("spill_bytes"));
        if (!size || !registers || !shared_bytes || !spill_bytes) {
            return miss("its manifest is damaged");
        }
        if (code->size() != *size) {
            return miss(fmt::format("{} has {} bytes instead of {}", file, code->size(), *size));
        }
        if (digest_of(*code) != manifest.at("binary_digest").get<std::string>()) {
            return miss(fmt::format("{} has another digest than its manifest says", file));
        }
        return KernelBinary{.code = std::move(*code),
                            .log = manifest.at("log"),
                            .registers = *registers,
                            .static_shared_bytes = *shared_bytes,
                            .spill_bytes = *spill_bytes,
                            .compile_ms = manifest.at("compile_ms")};
    } catch (const json::exception&) {
        return miss("its manifest is damaged");
    }
}

void write_entry(const fs::path& folder, const std::string& key, const KernelSource& source,
                 const CompileRequest& request, const KernelBinary& binary) {
    const fs::path root = folder.parent_path();
    const fs::path aside = make_aside(root);
    std::error_code ignored;
    try {
        fill_folder(aside, key, source, request, binary);
        if (install(aside, folder, key)) {
            sync_folder(root);
        } else {
            fs::remove_all(aside, ignored);
        }
    } catch (...) {
        fs::remove_all(aside, ignored);
        throw;
    }
}

bool remove_entry(const fs::path& folder) {
    const fs::path aside = make_aside(folder.parent_path());
    std::error_code error, ignored;
    fs::rename(folder, aside / "removed", error);
    fs::remove_all(aside, ignored);
    if (error && error != std::errc::no_such_file_or_directory) {
        throw std::system_error(error, folder.string());
    }
    return !error;
}

void remove_abandoned(const fs::path& root) noexcept {
    std::error_code error;
    const auto now = fs::file_time_type::clock::now();
    for (fs::directory_iterator item(root, error), end; !error && item != end;
         item.increment(error)) {
        std::error_code ignored;
        if (item->path().filename().string().starts_with(kAsidePrefix) &&
            // In either direction: the clock may have gone back since.
            std::chrono::abs(fs::last_write_time(item->path(), ignored) - now) >
                std::chrono::hours(1) &&
            !ignored) {
            fs::remove_all(item->path(), ignored);
        }
    }
}

}  // namespace spion
