#include "runtime/cuda/nvrtc_library.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <system_error>

#include "ir/error.h"
#include "runtime/cuda/driver.h"
#include "runtime/cuda/library_search.h"
#include "runtime/cuda/nvrtc_choice.h"
#include "runtime/environment.h"

namespace spion {
namespace {

using nvrtc_abi::kSuccess;

struct Opened {
    std::vector<std::unique_ptr<NvrtcLibrary>> libraries;
    std::string failures;  // of the candidates that are none, with the reason of each
};

// What the library says of itself, or why it is none that can be used.
std::string describe(NvrtcLibrary& nvrtc) {
    const auto& functions = nvrtc.functions;
    if (const std::string missing = nvrtc.functions.load(nvrtc.library); !missing.empty()) {
        return fmt::format("has no function {}", missing);
    }
    int count = 0;
    if (functions.nvrtcVersion(&nvrtc.release.major, &nvrtc.release.minor) != kSuccess ||
        functions.nvrtcGetNumSupportedArchs(&count) != kSuccess || count < 0) {
        return "does not say its release";
    }
    nvrtc.capabilities.resize(static_cast<std::size_t>(count));
    if (functions.nvrtcGetSupportedArchs(nvrtc.capabilities.data()) != kSuccess) {
        return "does not say what it compiles for";
    }
    return "";
}

bool is_open_already(const Opened& opened, const std::string& path) {
    std::error_code error;
    return std::any_of(opened.libraries.begin(), opened.libraries.end(), [&](const auto& other) {
        return std::filesystem::equivalent(other->library.path(), path, error);
    });
}

void open(Opened& opened, const std::string& candidate) {
    auto nvrtc = std::make_unique<NvrtcLibrary>(NvrtcLibrary{
        .library = SharedLibrary({candidate}), .functions = {}, .release = {}, .capabilities = {}});
    std::string failure = nvrtc->library.failures();
    if (nvrtc->library.is_open()) {
        if (is_open_already(opened, nvrtc->library.path())) {
            return;
        }
        const std::string problem = describe(*nvrtc);
        if (problem.empty()) {
            opened.libraries.push_back(std::move(nvrtc));
            return;
        }
        failure = fmt::format("{} ({})", nvrtc->library.path(), problem);
    }
    opened.failures += (opened.failures.empty() ? "" : ", ") + failure;
}

const Opened& opened_libraries() {
    static const Opened opened = [] {
        Opened all;
        for (const std::string& candidate :
             library_candidates(nvrtc_names(), environment_value, "/")) {
            open(all, candidate);
        }
        return all;
    }();
    return opened;
}

// The digits of "sm_90a"; 0 for any.
int capability_of(const std::string& arch) {
    int capability = 0;
    for (const char letter : arch) {
        if (letter >= '0' && letter <= '9') {
            capability = 10 * capability + (letter - '0');
        }
    }
    return capability;
}

NvrtcChoice choice_for(const std::string& arch) {
    std::vector<FoundNvrtc> found;
    for (const auto& nvrtc : opened_libraries().libraries) {
        found.push_back({.path = nvrtc->library.path(),
                         .release = nvrtc->release,
                         .capabilities = nvrtc->capabilities});
    }
    NvrtcChoice choice = choose_nvrtc(found, capability_of(arch), driver_cuda_release());
    if (found.empty()) {
        choice.problem =
            fmt::format("NVRTC, which compiles kernels for GPUs, cannot be opened: {}; tried: {}",
                        nvrtc_remedy(), opened_libraries().failures);
    }
    return choice;
}

}  // namespace

const NvrtcLibrary& nvrtc_library(const std::string& arch) {
    const NvrtcChoice choice = choice_for(arch);
    if (!choice.taken) {
        throw DeviceError("{}", choice.problem);
    }
    return *opened_libraries().libraries[*choice.taken];
}

std::optional<std::string> nvrtc_library_problem(const std::string& arch) {
    const NvrtcChoice choice = choice_for(arch);
    return choice.taken ? std::nullopt : std::optional(choice.problem);
}

std::optional<std::string> nvrtc_driver_problem(const std::string& arch) {
    const NvrtcChoice choice = choice_for(arch);
    return choice.driver_problem.empty() ? std::nullopt : std::optional(choice.driver_problem);
}

std::vector<std::string> nvrtc_libraries_found() {
    std::vector<std::string> found;
    for (const auto& nvrtc : opened_libraries().libraries) {
        found.push_back(fmt::format("{}.{} at {}", nvrtc->release.major, nvrtc->release.minor,
                                    nvrtc->library.path()));
    }
    return found;
}

}  // namespace spion
