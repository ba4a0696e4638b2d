#include "runtime/cuda/library_search.h"

#include <algorithm>
#include <system_error>

namespace spion {
namespace {

namespace fs = std::filesystem;

// Folders of `folder` whose names start so, in the order of their names.
std::vector<fs::path> folders_in(const fs::path& folder, const std::string& start) {
    std::vector<fs::path> folders;
    std::error_code error;
    for (fs::directory_iterator item(folder, error), end; !error && item != end;
         item.increment(error)) {
        std::error_code ignored;
        if (item->path().filename().string().starts_with(start) && item->is_directory(ignored)) {
            folders.push_back(item->path());
        }
    }
    std::sort(folders.begin(), folders.end());
    return folders;
}

// Appends libnvrtc.so, libnvrtc.so.13 and the like, each file once by whatever name.
void append_libraries(std::vector<std::string>& candidates, std::vector<fs::path>& files,
                      const fs::path& folder, std::string_view start) {
    std::vector<fs::path> names;
    std::error_code error;
    for (fs::directory_iterator item(folder, error), end; !error && item != end;
         item.increment(error)) {
        if (item->path().filename().string().starts_with(start)) {
            names.push_back(item->path());
        }
    }
    std::sort(names.begin(), names.end());
    for (const fs::path& name : names) {
        const fs::path file = fs::canonical(name, error);
        if (!error && std::find(files.begin(), files.end(), file) == files.end()) {
            files.push_back(file);
            candidates.push_back(name.string());
        }
    }
}

// The folders of Python packages below an installation's prefix.
std::vector<fs::path> package_folders(const fs::path& prefix) {
    std::vector<fs::path> folders;
    for (const fs::path& python : folders_in(prefix / "lib", "python3")) {
        folders.push_back(python / "site-packages");
        folders.push_back(python / "dist-packages");
    }
    return folders;
}

}  // namespace

LibraryNames nvrtc_names() {
    return {.variable = "SPION_NVRTC_LIBRARY",
            .start = "libnvrtc.so",
            .for_loader = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"}};
}

LibraryNames cublas_names() {
    return {.variable = "SPION_CUBLASLT_LIBRARY",
            .start = "libcublasLt.so",
            .for_loader = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"}};
}

LibraryNames nccl_names() {
    return {.variable = "SPION_NCCL_LIBRARY",
            .start = "libnccl.so",
            .for_loader = {"libnccl.so.2", "libnccl.so"}};
}

std::vector<std::string> library_candidates(const LibraryNames& names, const Variables& variable,
                                            const fs::path& root) {
    const auto value = [&](const char* name) -> std::optional<fs::path> {
        const auto text = variable(name);
        return text ? std::optional<fs::path>(*text) : std::nullopt;
    };
    if (const auto file = value(names.variable)) {
        return {file->string()};
    }
    std::vector<std::string> candidates = names.for_loader;
    std::vector<fs::path> files;
    const auto append = [&](const fs::path& folder) {
        append_libraries(candidates, files, folder, names.start);
    };
    for (const char* toolkit : {"CUDA_HOME", "CUDA_PATH"}) {
        if (const auto folder = value(toolkit)) {
            append(*folder / "lib64");
        }
    }
    for (const fs::path& toolkit : folders_in(root / "usr/local", "cuda")) {
        append(toolkit / "lib64");
    }
    std::vector<fs::path> prefixes;
    if (const auto environment = value("VIRTUAL_ENV")) {
        prefixes.push_back(*environment);
    }
    if (const auto conda = value("CONDA_PREFIX")) {
        append(*conda / "lib");
        prefixes.push_back(*conda);
    }
    if (const auto home = value("HOME")) {
        prefixes.push_back(*home / ".local");
    }
    prefixes.push_back(root / "usr/local");
    prefixes.push_back(root / "usr");
    for (const fs::path& prefix : prefixes) {
        for (const fs::path& packages : package_folders(prefix)) {
            for (const fs::path& package : folders_in(packages / "nvidia", "")) {
                append(package / "lib");
            }
            append(packages / "torch/lib");
        }
    }
    return candidates;
}

}  // namespace spion
