#include "tools/profiling_device.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "kernels/train_arguments.h"

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

// Bytes that a launch in a training step moves, each operand once, of the kernels whose arguments alone
// tell them; 0 for the others.
double bytes_of(const std::string& entry, const void* arguments) {
    constexpr double kFloat = sizeof(float);
    if (entry == "sum_partials") {
        const auto& args = *static_cast<const SpionSumPartialsArguments*>(arguments);
        double floats = 0;
        for (int n = 0; n < args.count; ++n) {
            const SpionPartialSum& sum = args.sums[n];
            floats += static_cast<double>((sum.count + 1) * sum.columns);
        }
        return kFloat * floats;
    }
    if (entry == "adamw") {
        const auto& args = *static_cast<const SpionAdamArguments*>(arguments);
        const double low = args.parameters_low != nullptr ? 2 : 0;
        // Parameters and both moments in and out, gradients in.
        return static_cast<double>(args.count) * (7 * kFloat + low);
    }
    if (entry.starts_with("classifier_")) {
        const auto& args = *static_cast<const SpionClassifierArguments*>(arguments);
        const double parameters =
            args.hidden_width * (args.channels + 1.0) + args.classes * (args.hidden_width + 1.0);
        // The pass over samples writes the gradient of what was pooled too.
        const double pooled = (entry == "classifier_forward_backward" ? 2.0 : 1.0) * args.channels;
        const double of_sample = pooled + 2.0 * args.hidden_width + args.classes;
        return kFloat * (parameters + args.batch * of_sample);
    }
    return 0;
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
    note({.name = kernel.entry(), .launches = 1, .bytes = bytes_of(kernel.entry(), arguments)});
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
