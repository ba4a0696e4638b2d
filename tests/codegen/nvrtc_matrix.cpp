// nvrtc_matrix sample|all|variants: compiles attention's kernels with the NVRTC that is found, and prints a
// line of tabs for each: family, target, kernel, tile, registers, bytes of spills, milliseconds,
// and why it was refused. tests/nvrtc_matrix.py runs it for every release.
#include <fmt/format.h>

#include <cstdio>
#include <exception>
#include <string>
#include <string_view>

#include "ir/error.h"
#include "runtime/cuda/nvrtc.h"
#include "tests/codegen/compile_jobs.h"

namespace {

using namespace spion;

std::string one_line(std::string text) {
    for (char& letter : text) {
        letter = letter == '\n' || letter == '\t' ? ' ' : letter;
    }
    return text;
}

void print_row(const std::string& family, const test::CompileJob& job) {
    KernelBinary binary;
    std::string refused;
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
    fmt::print("{}\t{}\t{}\t{}\t{}\t{}\t{:.0f}\t{}\n", family, job.target.arch, job.source.name,
               job.what, binary.registers, binary.spill_bytes, binary.compile_ms, refused);
    std::fflush(stdout);
}

void print_family(const std::string& family, const test::CompileJobs& jobs, std::size_t step) {
    for (std::size_t i = 0; i < jobs.size(); i += step) {
        print_row(family, jobs[i]);
    }
}

// The kernels that are asked for, of one target: one of `step`.
void print_target(const Target& target, std::size_t step) {
    print_family("chosen", test::chosen_jobs(target, false), step);
    print_family("wgmma", test::wgmma_jobs(target), step);
    print_family("together", test::together_jobs(target), step);
    print_family("warp items", test::warp_item_jobs(target), step);
    print_family("other D", test::other_dimension_jobs(target, false), step);
    print_family("summary", test::summary_jobs(target), step);
    print_family("baked", test::baked_jobs(target), step);
    print_family("packed", test::packed_jobs(target, false), step);
}

void print_wanted(std::string_view wanted) {
    for (const int capability : test::kArchitectures) {
        Target target = cuda_target(capability);
        if (nvrtc_problem(target.arch)) continue;  // the release is too old for it
        target.compiler = nvrtc_release(target.arch);
        if (wanted == "all") {
            print_target(target, 1);
        } else if (wanted == "variants") {
            print_family("wgmma variants", test::wgmma_jobs(target, true), 1);
        } else if (capability == 80 || capability == 90) {
            print_target(target, capability == 90 ? 12 : 24);
        }
    }
}

}  // namespace

int main(int count, char** arguments) {
    const std::string_view wanted = count == 2 ? arguments[1] : "";
    if (wanted != "sample" && wanted != "all" && wanted != "variants") {
        fmt::print(stderr, "usage: nvrtc_matrix sample|all|variants\n");
        return 2;
    }
    try {
        print_wanted(wanted);
    } catch (const std::exception& error) {
        fmt::print(stderr, "nvrtc_matrix: {}\n", error.what());
        return 2;
    }
    return 0;
}
