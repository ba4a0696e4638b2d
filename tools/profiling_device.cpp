#include "tools/profiling_device.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace spion {
namespace {

constexpr std::size_t kMostPending = 63;  // one mark more than that

ProfiledWork describe(const Gemm& gemm) {
    const double m = static_cast<double>(gemm.m), n = static_cast<double>(gemm.n),
                 k = static_cast<double>(gemm.k);
    return {.name = fmt::format("gemm [{}, {}] x [{}, {}]", gemm.m, gemm.k, gemm.k, gemm.n),
            .launches = 1,
            .ms = 0,
            .bytes = (m * k + k * n) * storage_bytes(gemm.input) +
                     m * n * storage_bytes(gemm.output) * (gemm.beta == 0 ? 1 : 2),
            .flop = 2 * m * n * k};
}

}  // namespace

void ProfilingDevice::start() {
    sums_.clear();
    pending_.clear();
    recording_ = true;
    inner_.mark(0);
}

std::vector<ProfiledWork> ProfilingDevice::stop() {
    flush();
    recording_ = false;
    return std::exchange(sums_, {});
}

void ProfilingDevice::launch(const LoadedKernel& kernel, const LaunchGeometry& geometry,
                             const void* arguments, std::size_t argument_bytes) {
    inner_.launch(kernel, geometry, arguments, argument_bytes);
    note({.name = kernel.entry(), .launches = 1});
}

void ProfilingDevice::gemm(const Gemm& gemm) {
    inner_.gemm(gemm);
    note(describe(gemm));
}

void ProfilingDevice::note(ProfiledWork work) {
    if (!recording_) return;
    pending_.push_back(std::move(work));
    inner_.mark(static_cast<int>(pending_.size()));
    if (pending_.size() == kMostPending) flush();
}

void ProfilingDevice::flush() {
    for (std::size_t n = 0; n < pending_.size(); ++n) {
        ProfiledWork& work = pending_[n];
        work.ms = inner_.milliseconds_between(static_cast<int>(n), static_cast<int>(n) + 1);
        const auto same = [&](const ProfiledWork& sum) { return sum.name == work.name; };
        const auto found = std::find_if(sums_.begin(), sums_.end(), same);
        if (found == sums_.end()) {
            sums_.push_back(std::move(work));
            continue;
        }
        found->launches += work.launches;
        found->ms += work.ms;
        found->bytes += work.bytes;
        found->flop += work.flop;
    }
    pending_.clear();
    inner_.mark(0);
}

}  // namespace spion
