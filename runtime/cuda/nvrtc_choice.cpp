#include "runtime/cuda/nvrtc_choice.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <tuple>

#include "ir/nvrtc_rules.h"

namespace spion {
namespace {

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

}  // namespace spion
