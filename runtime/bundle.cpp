#include "runtime/bundle.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>

#include "ir/error.h"
#include "ir/sha256.h"
#include "runtime/atomic_file.h"
#include "runtime/cache.h"
#include "runtime/cache_entry.h"

namespace spion {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kBundleManifest = "manifest.json";

CompileRequest without_compiler(CompileRequest request) {
    request.options.clear();
    request.compiler.clear();
    return request;
}

json record_of(const BundledKernel& kernel) {
    return {{"key", kernel.key},
            {"name", kernel.name},
            {"entry", kernel.entry},
            {"arch", kernel.arch},
            {"features", kernel.features},
            {"folder", kernel.folder},
            {"binary_digest", kernel.binary_digest},
            {"compiler", kernel.compiler}};
}

BundledKernel kernel_of(const json& record) {
    return {.key = record.at("key"),
            .name = record.at("name"),
            .entry = record.at("entry"),
            .arch = record.at("arch"),
            .features = record.at("features"),
            .folder = record.at("folder"),
            .binary_digest = record.at("binary_digest"),
            .compiler = record.at("compiler")};
}

json record_of(const Target& target) {
    return {{"arch", target.arch},
            {"features", target.features},
            {"processors", target.sm_count},
            {"compiler_major", target.compiler.major},
            {"compiler_minor", target.compiler.minor}};
}

Target target_of(const json& record) {
    Target target;
    target.arch = record.at("arch");
    target.features = record.at("features");
    target.sm_count = record.at("processors");
    target.compiler = {.major = record.at("compiler_major"), .minor = record.at("compiler_minor")};
    return target;
}

std::string read_text(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    if (!file || file.bad()) {
        throw DeviceError(
            "{} is no bundle that can be read: it has no manifest.json; give the folder that "
            "spion bundle has written",
            path.parent_path().string());
    }
    return text;
}

}  // namespace

std::string bundle_key(const KernelSource& source, const Target& target) {
    return cache_key({.entry = source.entry,
                      .text = source.text,
                      .includes = source.includes,
                      .arch = target.arch,
                      .features = target.features,
                      .options = {},
                      .compiler = ""});
}

Bundle Bundle::open(const fs::path& path) {
    Bundle bundle;
    bundle.path_ = path;
    const std::string text = read_text(path / kBundleManifest);
    try {
        const json manifest = json::parse(text);
        const int format = manifest.at("bundle_format");
        bundle.version_ = manifest.at("spion");
        if (format != kBundleFormat) {
            throw UserError(
                "bundle {} is of format {}, written by spion {}, and this spion reads format {}: "
                "make it again with this spion",
                path.string(), format, bundle.version_, kBundleFormat);
        }
        for (const json& record : manifest.at("kernels")) {
            bundle.kernels_.push_back(kernel_of(record));
        }
        for (const json& record : manifest.at("targets")) {
            bundle.targets_.push_back(target_of(record));
        }
    } catch (const json::exception&) {
        throw DeviceError("the manifest of bundle {} is damaged: make the bundle again",
                          path.string());
    }
    return bundle;
}

std::optional<KernelBinary> Bundle::find(const KernelSource& source, const Target& target) const {
    const std::string key = bundle_key(source, target);
    const auto found = std::find_if(kernels_.begin(), kernels_.end(),
                                    [&](const BundledKernel& kernel) { return kernel.key == key; });
    return found == kernels_.end() ? std::nullopt : std::optional(read(*found));
}

KernelBinary Bundle::read(const BundledKernel& kernel) const {
    const fs::path folder = path_ / fs::path(kernel.folder).filename();
    std::string problem;
    std::optional<KernelBinary> binary = read_entry(folder, kernel.key, &problem);
    if (binary && digest_of(binary->code) != kernel.binary_digest) {
        problem = "its binary has another digest than the bundle's manifest says";
        binary.reset();
    }
    if (!binary) {
        throw DeviceError("kernel {} for {} of bundle {} is damaged: {}; make the bundle again",
                          kernel.name, kernel.arch, path_.string(), problem);
    }
    return std::move(*binary);
}

Target Bundle::as_compiled_for(Target target) const {
    for (const Target& ours : targets_) {
        if (ours.arch == target.arch && ours.features == target.features) {
            target.sm_count = ours.sm_count;
            target.compiler = ours.compiler;
        }
    }
    return target;
}

std::string Bundle::targets() const {
    std::map<std::string, int> counts;
    for (const BundledKernel& kernel : kernels_) {
        ++counts[kernel.arch];
    }
    std::string text;
    for (const auto& [arch, count] : counts) {
        text += fmt::format("{}{}: {} kernel{}", text.empty() ? "" : ", ", arch, count,
                            count == 1 ? "" : "s");
    }
    return text.empty() ? "nothing" : text;
}

void write_bundle(const fs::path& path, std::string_view spion_version,
                  std::span<const NewBundledKernel> kernels) {
    if (fs::exists(path)) {
        throw UserError("{} exists already: give a bundle a path of its own, or remove that one",
                        path.string());
    }
    const fs::path aside = path.string() + fmt::format(".{}.aside", getpid());
    std::error_code ignored;
    try {
        fs::create_directories(aside);
        json records = json::array(), targets = json::array();
        std::set<std::string> archs;
        std::set<std::string> keys;
        for (const NewBundledKernel& kernel : kernels) {
            const std::string key = cache_key(without_compiler(kernel.request));
            if (archs.insert(kernel.target.arch).second) {
                targets.push_back(record_of(kernel.target));
            }
            if (!keys.insert(key).second) {
                continue;  // several attentions share it
            }
            const std::string folder = entry_folder_name(kernel.source.name, key);
            write_entry(aside / folder, key, kernel.source, kernel.request, kernel.binary);
            records.push_back(record_of({.key = key,
                                         .name = kernel.source.name,
                                         .entry = kernel.source.entry,
                                         .arch = kernel.request.arch,
                                         .features = kernel.request.features,
                                         .folder = folder,
                                         .binary_digest = digest_of(kernel.binary.code),
                                         .compiler = kernel.request.compiler}));
        }
        const json manifest = {{"bundle_format", kBundleFormat},
                               {"spion", std::string(spion_version)},
                               {"targets", std::move(targets)},
                               {"kernels", std::move(records)}};
        write_file(aside / kBundleManifest, manifest.dump(2) + "\n",
                   "give the bundle a path in a folder that can");
        fs::rename(aside, path);
    } catch (const std::system_error& error) {
        fs::remove_all(aside, ignored);
        throw DeviceError("bundle {} cannot be written ({}): give a path in a folder that can",
                          path.string(), error.code().message());
    } catch (...) {
        fs::remove_all(aside, ignored);
        throw;
    }
}

}  // namespace spion
