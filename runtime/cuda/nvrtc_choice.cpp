#include "runtime/cuda/nvrtc_choice.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <system_error>
#include <tuple>

#include "ir/nvrtc_rules.h"

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
                      const fs::path& folder) {
    std::vector<fs::path> names;
    std::error_code error;
    for (fs::directory_iterator item(folder, error), end; !error && item != end;
         item.increment(error)) {
        if (item->path().filename().string().starts_with("libnvrtc.so")) {
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

std::string known(const FoundNvrtc& nvrtc) {
    return fmt::format("NVRTC {} at {}", to_text(nvrtc.release), nvrtc.path);
}

}  // namespace

std::string nvrtc_remedy(const CompilerRelease& oldest) {
    return fmt::format(
        "install NVRTC {} or later (Python's package nvidia-cuda-nvrtc, Debian's cuda-nvrtc-13-0 "
        "or a CUDA toolkit) or set SPION_NVRTC_LIBRARY to the path of libnvrtc.so",
        to_text(oldest));
}

NvrtcChoice choose_nvrtc(const std::vector<FoundNvrtc>& found, int capability,
                         const std::optional<CompilerRelease>& driver) {
    const auto accepted = [&](const FoundNvrtc& nvrtc) {
        return !driver || nvrtc.release.major <= driver->major;
    };
    const auto knows = [&](const FoundNvrtc& nvrtc) {
        return capability == 0 ||
               std::count(nvrtc.capabilities.begin(), nvrtc.capabilities.end(), capability) > 0;
    };
    const auto rank = [&](const FoundNvrtc& nvrtc) {
        const bool works = nvrtc.release >= kOldestNvrtc;
        return std::make_tuple(works, works && knows(nvrtc), accepted(nvrtc), nvrtc.release);
    };
    const auto best =
        std::max_element(found.begin(), found.end(),
                         [&](const auto& a, const auto& b) { return rank(a) < rank(b); });
    if (best == found.end()) {
        return {
            .taken = {}, .problem = "no NVRTC was found; " + nvrtc_remedy(), .driver_problem = {}};
    }
    NvrtcChoice choice;
    if (best->release < kOldestNvrtc) {
        choice.problem = fmt::format("{} is too old, for the oldest release that works is {}: {}",
                                     known(*best), to_text(kOldestNvrtc), nvrtc_remedy());
    } else if (!knows(*best)) {
        std::vector<int> usable = best->capabilities;
        std::erase_if(usable, [](int known) { return known < 80; });  // for which there are kernels
        choice.problem = fmt::format("{} does not compile for sm_{}, only for sm_{}: {}",
                                     known(*best), capability, fmt::join(usable, ", sm_"),
                                     nvrtc_remedy(oldest_nvrtc_for(capability)));
    } else {
        choice.taken = static_cast<std::size_t>(best - found.begin());
        if (!accepted(*best)) {
            choice.driver_problem = fmt::format(
                "the driver loads kernels of CUDA up to {}.x, and {} is the best that was found: "
                "install an NVRTC of CUDA {} (Python's package nvidia-cuda-nvrtc-cu{}), or a newer "
                "driver",
                driver->major, known(*best), driver->major, driver->major);
        }
    }
    return choice;
}

std::vector<std::string> nvrtc_candidates(const Variables& variable, const fs::path& root) {
    const auto value = [&](const char* name) -> std::optional<fs::path> {
        const auto text = variable(name);
        return text ? std::optional<fs::path>(*text) : std::nullopt;
    };
    if (const auto file = value("SPION_NVRTC_LIBRARY")) {
        return {file->string()};
    }
    std::vector<std::string> candidates{"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"};
    std::vector<fs::path> files;
    const auto append = [&](const fs::path& folder) {
        append_libraries(candidates, files, folder);
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
