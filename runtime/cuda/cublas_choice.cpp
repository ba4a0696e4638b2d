#include "runtime/cuda/cublas_choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "ir/nvrtc_rules.h"

namespace spion {

std::string cublas_remedy() {
    return fmt::format(
        "install cuBLASLt {} or later (Python's package nvidia-cublas, Debian's libcublas-13-0 or "
        "a "
        "CUDA toolkit) or set SPION_CUBLASLT_LIBRARY to the path of libcublasLt.so",
        to_text(kOldestCublas));
}

CublasChoice choose_cublas(const std::vector<FoundCublas>& found,
                           const std::optional<CompilerRelease>& driver) {
    const auto accepted = [&](const FoundCublas& cublas) {
        return !driver || cublas.release.major <= driver->major;
    };
    const auto rank = [&](const FoundCublas& cublas) {
        return std::make_tuple(cublas.release >= kOldestCublas, accepted(cublas), cublas.release);
    };
    const auto best =
        std::max_element(found.begin(), found.end(),
                         [&](const auto& a, const auto& b) { return rank(a) < rank(b); });
    if (best == found.end()) {
        return {.taken = {}, .problem = "no cuBLASLt was found; " + cublas_remedy()};
    }
    const std::string known = fmt::format("cuBLASLt {} at {}", to_text(best->release), best->path);
    if (best->release < kOldestCublas) {
        return {.taken = {}, .problem = fmt::format("{} is too old: {}", known, cublas_remedy())};
    }
    if (!accepted(*best)) {
        return {
            .taken = {},
            .problem = fmt::format(
                "the driver runs libraries of CUDA up to {}.x, and {} is the best that was "
                "found: install cuBLASLt of CUDA {} (Python's package nvidia-cublas-cu{}), or a "
                "newer driver",
                driver->major, known, driver->major, driver->major)};
    }
    return {.taken = static_cast<std::size_t>(best - found.begin()), .problem = ""};
}

}  // namespace spion
