// nvrtc_matrix sample|all|variants [80]: compiles attention's and the training step's kernels with the
// NVRTC that is found, and prints a line with tabs for each: family, target, kernel, tile,
// registers, bytes of spills, milliseconds of SM time, and why it was refused (or that its
// constants are device variables); for every compute capability, or for one.
// tests/nvrtc_matrix.py runs it for every release.
#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <string>
#include <string_view>
#include <utility>

#include "ir/error.h"
#include "runtime/cuda/nvrtc.h"
#include "tests/codegen/compile_jobs.h"
#include "tests/support/known_gpus.h"
#include "train/fused_feed_forward.h"
#include "train/fused_linear.h"
#include "train/kernels.h"

namespace {

using namespace spion;

std::string one_line(std::string text) {
    for (char& letter : text) {
        letter = letter == '\n' || letter == '\t' ? ' ' : letter;
    }
    return text;
}

// Of the whole process, whose only work is to compile: what a compilation costs, whatever else the
// machine has to do.
double processor_ms() {
    timespec now{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return 1e3 * static_cast<double>(now.tv_sec) + 1e-6 * static_cast<double>(now.tv_nsec);
}

bool has_device_variables(const KernelSource& source, const KernelBinary& binary) {
    const bool tables = source.text.find("SPION_BAKED_TABLES") != std::string::npos;
    return !tables && binary.log.find(" 0 bytes gmem") == std::string::npos;
}

void print_row(const std::string& family, const test::CompileJob& job) {
    KernelBinary binary;
    std::string refused;
    const double start = processor_ms();
    try {
        binary = compile_with_nvrtc({.entry = job.source.entry,
                                     .text = job.source.text,
                                     .includes = job.source.includes,
                                     .arch = job.target.arch,
                                     .features = "",
                                     .options = nvrtc_options(job.target.arch),
                                     .compiler = nvrtc_version(job.target.arch)});
    } catch (const std::exception& error) {
        refused = one_line(error.what());
    }
    const double milliseconds = processor_ms() - start;
    if (refused.empty() && has_device_variables(job.source, binary)) {
        refused = "constants are device variables";
    }
    fmt::print("{}\t{}\t{}\t{}\t{}\t{}\t{:.0f}\t{}\n", family, job.target.arch, job.source.name,
               job.what, binary.registers, binary.spill_bytes, milliseconds, refused);
    std::fflush(stdout);
}

void print_family(const std::string& family, const test::CompileJobs& jobs, std::size_t step) {
    for (std::size_t i = 0; i < jobs.size(); i += step) {
        print_row(family, jobs[i]);
    }
}

void print_special_units(const Target& target, bool all, std::size_t step) {
    for (const MatrixUnit unit : kMatrixUnits) {
        if (test::is_special(unit)) {
            print_family(std::string(to_string(unit)), test::unit_jobs(unit, target, all), step);
        }
    }
}

// The training step's kernels at the paper's settings and at the widest, with those that do a layer
// or two in one.
test::CompileJobs training_jobs(const Target& target) {
    const StepShape paper = {};
    const StepShape widest = {
        .channels = 1024, .feed_forward = 4096, .vocabulary = 512, .dropout = 0.1F};
    test::CompileJobs jobs;
    const auto add = [&](const char* what, KernelSource source) {
        jobs.push_back(
            {.what = what, .source = std::move(source), .geometry = {}, .target = target});
    };
    for (int i = 0; i < kStepKernels; ++i) {
        add("paper", step_kernel_source(static_cast<StepKernel>(i), paper, target));
        add("widest", step_kernel_source(static_cast<StepKernel>(i), widest, target));
    }
    for (const auto& [channels, hidden] : {std::pair{64, 128}, {64, 256}, {128, 128}}) {
        const FusedFeedForwardShape both{.channels = channels, .hidden = hidden, .dropout = 0.1F};
        if (can_fuse(both, target)) add("fused", fused_feed_forward_source(both, target));
        const FusedLinearShape one{.out = channels, .in = hidden, .gelu = true, .dropout = 0.1F};
        if (can_fuse(one, target)) add("fused", fused_linear_source(one, target));
    }
    return jobs;
}

// The kernels that are asked for, of one target: one of `step`.
void print_target(const Target& target, std::size_t step) {
    print_family("chosen", test::chosen_jobs(target, false), step);
    print_special_units(target, false, step);
    print_family("fused", test::fused_backward_jobs(target), step);
    print_family("other D", test::other_dimension_jobs(target, false), step);
    print_family("summary", test::summary_jobs(target), step);
    print_family("baked", test::baked_jobs(target), step);
    print_family("packed", test::packed_jobs(target, false), step);
    print_family("changed", test::changed_jobs(target, false), step);
    print_family("expressed", test::changed_jobs(target, true), step);
    print_family("training", training_jobs(target), step);
}

void print_wanted(std::string_view wanted, int only) {
    for (const int capability : test::known_capabilities()) {
        if (only != 0 && capability != only) continue;
        Target target = cuda_target(capability);
        if (nvrtc_problem(target.arch)) continue;  // the release is too old for it
        target.compiler = nvrtc_release(target.arch);
        if (wanted == "all") {
            print_target(target, 1);
        } else if (wanted == "variants") {
            print_family("chosen", test::chosen_jobs(target, true), 1);
            print_special_units(target, true, 1);
            print_family("other D", test::other_dimension_jobs(target, true), 1);
            print_family("packed", test::packed_jobs(target, true), 1);
        } else if (capability == 80 || capability == 90) {
            print_target(target, capability == 90 ? 12 : 24);
        }
    }
}

}  // namespace

int main(int count, char** arguments) {
    const std::string_view wanted = count >= 2 ? arguments[1] : "";
    const int only = count == 3 ? std::atoi(arguments[2]) : 0;
    if (wanted != "sample" && wanted != "all" && wanted != "variants") {
        fmt::print(stderr, "usage: nvrtc_matrix sample|all|variants [80]\n");
        return 2;
    }
    try {
        print_wanted(wanted, only);
    } catch (const std::exception& error) {
        fmt::print(stderr, "nvrtc_matrix: {}\n", error.what());
        return 2;
    }
    return 0;
}
